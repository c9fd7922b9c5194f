/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors container: written and read without loss, and no header leads out of the file. */
#include "fixture.h"

#include "linnet/safetensors.h"

/* A file of this header and n_data bytes 0, 1, 2, ... */
static linnet_buffer file_of(const char *header, size_t n_data)
{
    linnet_buffer b = {0};
    linnet_buffer_append_le64(&b, strlen(header));
    linnet_buffer_append_text(&b, header);
    for (size_t i = 0; i < n_data; i++)
        linnet_buffer_append_u8(&b, (uint8_t)i);
    return b;
}

static void headers_are_checked_before_use(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        linnet_status want;
        const char *message;
    } cases[] = {
        {"{}", 0, LINNET_OK, ""},
        {"{\"__metadata__\":{\"format\":\"pt\"}}", 0, LINNET_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16, LINNET_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, LINNET_OK, ""},
        {"{\"b\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[4,6]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}   ",
         6, LINNET_OK, ""},
        {"", 0, LINNET_ERR_FORMAT, "malformed"},
        {"[]", 0, LINNET_ERR_FORMAT, "no object"},
        {"{}{}", 0, LINNET_ERR_FORMAT, "malformed"},
        {"{\"a\":1}", 0, LINNET_ERR_FORMAT, "'a' has no dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, LINNET_ERR_FORMAT, "malformed"},
        {"{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, LINNET_ERR_UNSUPPORTED,
         "I64"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, LINNET_ERR_FORMAT, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, LINNET_ERR_FORMAT, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, LINNET_ERR_FORMAT, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, LINNET_ERR_FORMAT, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, LINNET_ERR_FORMAT,
         "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0,
         LINNET_ERR_FORMAT, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,0]}}", 0,
         LINNET_ERR_FORMAT, "malformed"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, LINNET_ERR_FORMAT, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, LINNET_ERR_FORMAT,
         "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, LINNET_ERR_FORMAT, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, LINNET_ERR_FORMAT, "outside"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, LINNET_ERR_FORMAT,
         "cut short"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, LINNET_ERR_FORMAT,
         "behind the last"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, LINNET_ERR_FORMAT, "hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, LINNET_ERR_FORMAT, "overlaps"},
        {"{\"x\":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}", 0, LINNET_ERR_LIMIT, "nests deeper"},
        {"{\"\\\"[[[[[[[[[[[[[[[[[[[[[\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         LINNET_OK, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer b = file_of(cases[i].header, cases[i].n_data);
        linnet_safetensors *file = NULL;
        linnet_error err = {0};
        linnet_status got = linnet_safetensors_open_bytes(b.bytes, b.n_bytes, &file, &err);
        if (got != cases[i].want || !strstr(err.message, cases[i].message))
            fail_msg("%s: got %s: %s", cases[i].header, linnet_status_name(got), err.message);
        linnet_safetensors_close(file);
        linnet_buffer_release(&b);
    }
}

static void lengths_past_the_end_are_refused(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {3, 100, UINT32_MAX, UINT64_C(1) << 63, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        linnet_buffer b = file_of("{}", 0);
        linnet_safetensors *file = NULL;
        linnet_error err = {0};
        linnet_store_le64(b.bytes, lengths[i]);
        assert_int_equal(linnet_safetensors_open_bytes(b.bytes, b.n_bytes, &file, &err), LINNET_ERR_FORMAT);
        linnet_buffer_release(&b);
    }
    linnet_safetensors *file = NULL;
    linnet_error err = {0};
    assert_int_equal(linnet_safetensors_open_bytes("\2\0\0\0\0\0\0", 7, &file, &err), LINNET_ERR_FORMAT);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    static const float x[6] = {1, -2, 3.5f, 1e-42f, 0, 1e38f}, y[1] = {7};
    linnet_safetensors_tensor tensors[2] = {
        {"first.weight", LINNET_SAFETENSORS_F32, 2, {3, 2, 1, 1}, (const uint8_t *)x, sizeof(x)},
        {"second", LINNET_SAFETENSORS_F32, 0, {1, 1, 1, 1}, (const uint8_t *)y, sizeof(y)}};
    linnet_safetensors *file = NULL;
    linnet_error err = {0};
    float back[6];
    assert_ok(linnet_safetensors_write(in_folder("w.safetensors"), tensors, 2, &err), &err);
    assert_ok(linnet_safetensors_open(in_folder("w.safetensors"), &file, &err), &err);
    assert_int_equal(linnet_safetensors_n_tensors(file), 2);
    for (size_t i = 0; i < 2; i++) {
        const linnet_safetensors_tensor *tensor = linnet_safetensors_at(file, i);
        assert_string_equal(tensor->name, tensors[i].name);
        assert_int_equal(tensor->n_dims, tensors[i].n_dims);
        assert_memory_equal(tensor->dims, tensors[i].dims, sizeof(tensor->dims));
        linnet_safetensors_read(tensor, back);
        assert_memory_equal(back, tensors[i].bytes, tensors[i].n_bytes);
    }
    assert_int_equal((uintptr_t)linnet_safetensors_at(file, 0)->bytes % 8, 0); /* the map starts on a page */
    linnet_safetensors_close(file);
    tensors[1].n_bytes = 8;
    assert_int_equal(linnet_safetensors_write(in_folder("x"), tensors, 2, &err), LINNET_ERR_ARG);
    tensors[1].n_bytes = 4;
    strcpy(tensors[1].name, "quo\"te");
    assert_int_equal(linnet_safetensors_write(in_folder("x"), tensors, 2, &err), LINNET_ERR_ARG);
    assert_int_not_equal(access(in_folder("x"), F_OK), 0);
}

static void halves_widen_exactly(void **state)
{
    (void)state;
    linnet_buffer b = file_of("{\"h\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                              "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[4,8]}}",
                              0);
    linnet_safetensors *file = NULL;
    linnet_error err = {0};
    float values[2];
    linnet_buffer_append(&b, "\x01\x00\x00\xc0\x80\x3f\x2c\xc0", 8);
    assert_ok(linnet_safetensors_open_bytes(b.bytes, b.n_bytes, &file, &err), &err);
    linnet_safetensors_read(linnet_safetensors_at(file, 0), values);
    assert_true(values[0] == 0x1p-24f && values[1] == -2);
    linnet_safetensors_read(linnet_safetensors_at(file, 1), values);
    assert_true(values[0] == 1 && values[1] == -2.6875f);
    linnet_safetensors_close(file);
    linnet_buffer_release(&b);
}

static void a_file_cut_or_changed_does_no_harm(void **state)
{
    (void)state;
    linnet_buffer b = file_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
                              "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[8,12]}}",
                              12);
    for (size_t n = 0; n < b.n_bytes; n++) {
        linnet_safetensors *file = NULL;
        linnet_error err = {0};
        uint8_t *cut = malloc(n + 1);
        assert_non_null(cut);
        memcpy(cut, b.bytes, n);
        assert_int_not_equal(linnet_safetensors_open_bytes(cut, n, &file, &err), LINNET_OK);
        free(cut);
    }
    for (size_t i = 0; i < 8 * b.n_bytes; i++) {
        linnet_safetensors *file = NULL;
        linnet_error err = {0};
        float values[16];
        b.bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        if (linnet_safetensors_open_bytes(b.bytes, b.n_bytes, &file, &err) == LINNET_OK)
            for (size_t t = 0; t < linnet_safetensors_n_tensors(file); t++)
                linnet_safetensors_read(linnet_safetensors_at(file, t), values);
        linnet_safetensors_close(file);
        b.bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    linnet_buffer_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_checked_before_use),
        cmocka_unit_test(lengths_past_the_end_are_refused),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(halves_widen_exactly),
        cmocka_unit_test(a_file_cut_or_changed_does_no_harm),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
