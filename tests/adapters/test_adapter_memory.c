/* SPDX-License-Identifier: Apache-2.0 */
/* The n-th allocation fails, for every n: each call says NOMEM, leaves its outputs alone and leaks nothing
 * (the last under a sanitizer). The linker puts the functions below in front of the library's own calls;
 * jansson's are left alone: version 2.14 reads and writes past a block after a failed allocation of its
 * own. */
#include "fixture.h"

#include "split_model.h"

#include "linnet/aggregate.h"
#include "linnet/quantize.h"
#include "linnet/robust.h"

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t n);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t n);
char *__wrap_strdup(const char *text);

static long n_left = -1; /* allocations until one fails; negative: none does */

static bool fails_now(void)
{
    return n_left >= 0 && n_left-- == 0;
}

void *__wrap_malloc(size_t n)
{
    return fails_now() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails_now() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t n)
{
    return fails_now() ? NULL : __real_realloc(old, n);
}

char *__wrap_strdup(const char *text)
{
    return fails_now() ? NULL : __real_strdup(text);
}

static linnet_status load_and_drop(const char *path, const linnet_gguf *model, linnet_error *err)
{
    linnet_adapter *adapter = NULL;
    linnet_status status = linnet_adapter_load(path, model, &adapter, err);
    if ((status == LINNET_OK) != (adapter != NULL))
        fail_msg("status %s with an adapter at %p", linnet_status_name(status), (void *)adapter);
    linnet_adapter_destroy(adapter);
    return status;
}

static linnet_status pack_and_unpack(const linnet_adapter *adapter, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_adapter *back = NULL;
    linnet_server_state momentum = {0};
    linnet_status status = linnet_adapter_pack(adapter, &bytes, err);
    if (status == LINNET_OK)
        status = linnet_adapter_unpack(adapter->layout, bytes.bytes, bytes.n_bytes, &back, err);
    if (status == LINNET_OK)
        status =
            linnet_server_state_init(&momentum, LINNET_SERVER_FEDAVGM, adapter->layout->n_parameters, err);
    linnet_server_state_release(&momentum);
    linnet_adapter_destroy(back);
    linnet_buffer_release(&bytes);
    return status;
}

static linnet_status krum(const linnet_adapter *adapter, linnet_error *err)
{
    const float *const vectors[3] = {adapter->data, adapter->data, adapter->data};
    float first = 0;
    linnet_robust_config config;
    linnet_robust_default(&config);
    config.rule = LINNET_ROBUST_KRUM;
    return linnet_robust_aggregate(&config, vectors, NULL, 3, 1, &first, err);
}

static linnet_status open_and_close(const char *path, linnet_error *err)
{
    linnet_gguf *gguf = NULL;
    linnet_status status = linnet_gguf_open(path, &gguf, err);
    if ((status == LINNET_OK) != (gguf != NULL))
        fail_msg("status %s with a model at %p", linnet_status_name(status), (void *)gguf);
    linnet_gguf_close(gguf);
    return status;
}

static linnet_status quantize(const char *path, linnet_error *err)
{
    linnet_gguf *gguf = NULL;
    linnet_quantize_summary summary;
    linnet_status status = linnet_gguf_open(path, &gguf, err);
    if (status == LINNET_OK)
        status = linnet_quantize_file(gguf, LINNET_TENSOR_F16, in_folder("quantized.gguf"), &summary, err);
    linnet_gguf_close(gguf);
    return status;
}

/* Everything that allocates, once. */
static linnet_status use_everything(linnet_error *err)
{
    linnet_gguf *model = NULL;
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_status status = linnet_gguf_open(in_folder("tiny.gguf"), &model, err);
    if (status == LINNET_OK)
        status = linnet_layout_create(model, 2, 4, 5, &layout, err);
    if (status == LINNET_OK)
        status = linnet_adapter_create(layout, &adapter, err);
    if (status == LINNET_OK)
        status = linnet_adapter_save_peft(adapter, "llama", in_folder("peft"), "x", err);
    if (status == LINNET_OK)
        status = load_and_drop(in_folder("peft"), model, err);
    if (status == LINNET_OK)
        status = linnet_adapter_save_gguf(adapter, "llama", in_folder("adapter.gguf"), err);
    if (status == LINNET_OK)
        status = load_and_drop(in_folder("adapter.gguf"), model, err);
    if (status == LINNET_OK)
        status = linnet_adapter_merge(adapter, model, LINNET_TENSOR_F16, in_folder("merged.gguf"), err);
    if (status == LINNET_OK)
        status = pack_and_unpack(adapter, err);
    if (status == LINNET_OK)
        status = krum(adapter, err);
    if (status == LINNET_OK)
        status = open_and_close(split_path(in_folder("split"), 0, 3), err);
    if (status == LINNET_OK)
        status = open_and_close(LINNET_VECTORS "/checkpoints/qwen2", err);
    if (status == LINNET_OK)
        status = quantize(LINNET_VECTORS "/checkpoints/llama", err);
    linnet_adapter_destroy(adapter);
    linnet_layout_destroy(layout);
    linnet_gguf_close(model);
    return status;
}

static void every_failed_allocation_is_told(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        linnet_error err = {0};
        n_left = n;
        linnet_status status = use_everything(&err);
        bool failed = n_left < 0; /* the chosen allocation came */
        n_left = -1;
        if (!failed) {
            assert_ok(status, &err);
            print_message("%ld allocations\n", n);
            assert_true(n > 50);
            break;
        }
        if (status != LINNET_ERR_NOMEM || err.message[0] == '\0')
            fail_msg("allocation %ld: got %s: %s", n, linnet_status_name(status), err.message);
    }
}

static int make_model(void **state)
{
    if (make_folder(state) != 0)
        return -1;
    linnet_gguf *model = tiny_model(in_folder("tiny.gguf"));
    split_model(model, in_folder("split"), 3);
    linnet_gguf_close(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failed_allocation_is_told),
    };
    return cmocka_run_group_tests(tests, make_model, remove_folder);
}
