/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts and adapters in memory: the same everywhere, started as said, packed and hashed without loss. */
#include "fixture.h"

#include "adapters/half.h"

#include <math.h>

static linnet_gguf *model;

static int make_model(void **state)
{
    if (make_folder(state) != 0)
        return -1;
    model = tiny_model(in_folder("tiny.gguf"));
    return model ? 0 : -1;
}

static int drop_model(void **state)
{
    linnet_gguf_close(model);
    return remove_folder(state);
}

static linnet_layout *layout_of(const char *targets, uint32_t rank, float alpha)
{
    linnet_error err = {0};
    linnet_layout *layout = NULL;
    uint32_t mask = 0;
    assert_ok(linnet_targets_parse(targets, &mask, &err), &err);
    assert_ok(linnet_layout_create(model, rank, alpha, mask, &layout, &err), &err);
    return layout;
}

static void targets_are_known_by_both_names(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t want;
    } good[] = {
        {"all", LINNET_TARGETS_ALL},
        {"attn_q", 1},
        {"attn_q,attn_v", 5},
        {"q_proj,v_proj", 5},
        {"v_proj,attn_q", 5},
        {"self_attn.o_proj", 8},
        {"gate_proj,up_proj", 0x30},
        {"mlp.down_proj,ffn_down", 0x40},
        {"attn_qkv", 0x80},
        {"c_attn,qkv_proj", 0x80},
        {"dense,fc1", 0x28},
        {"gate_up_proj", 0x20},
        {"c_proj", 0x48}, /* gpt2 calls two so, and peft adapts both */
        {"attn.c_proj", 8},
        {"query,value", 5}, /* bert's, and so on */
        {"attention.output.dense", 8},
        {"output.dense", 0x48},
        {"intermediate.dense", 0x20},
        {"cls,cls.output", 0x300},
        {"pooler.dense,classifier", 0x300},
    };
    static const char *const bad[] = {"",    "attn",       "attn_q,", ",attn_q", "attn_q attn_v",
                                      "ALL", "attn_q,all", "proj"};
    linnet_error err = {0};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint32_t mask = 0;
        assert_ok(linnet_targets_parse(good[i].text, &mask, &err), &err);
        assert_int_equal(mask, good[i].want);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint32_t mask = 99;
        assert_int_equal(linnet_targets_parse(bad[i], &mask, &err), LINNET_ERR_ARG);
        assert_int_equal(mask, 99);
    }
}

static void a_layout_follows_the_model(void **state)
{
    (void)state;
    linnet_layout *layout = layout_of("all", 3, 6);
    size_t at = 0, n_a = 0;
    assert_int_equal(layout->n_entries, 14);
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        size_t m = e % 7;
        assert_int_equal(entry->layer, e / 7);
        assert_int_equal(entry->target, m);
        assert_int_equal(entry->rows, tiny_matrices[m].rows);
        assert_int_equal(entry->columns, tiny_matrices[m].columns);
        assert_int_equal(entry->n_rope_heads, m == 0 ? 2 : m == 1 ? 1 : 0);
        assert_int_equal(entry->a_offset, at);
        at += (size_t)entry->rank * entry->columns;
        n_a += (size_t)entry->rank * entry->columns;
        assert_int_equal(entry->b_offset, at);
        at += (size_t)entry->rank * entry->rows;
        assert_ptr_equal(linnet_layout_find(layout, entry->name), entry);
    }
    assert_string_equal(layout->entries[8].name, "blk.1.attn_k.weight");
    assert_int_equal(layout->n_parameters, at);
    assert_int_equal(layout->n_a, n_a);
    assert_int_equal(linnet_factors_length(layout, LINNET_FACTOR_A), n_a);
    assert_int_equal(linnet_factors_length(layout, LINNET_FACTOR_B), at - n_a);
    assert_int_equal(linnet_factors_length(layout, LINNET_FACTORS_BOTH), at);
    assert_null(linnet_layout_find(layout, "blk.2.attn_q.weight"));
    linnet_layout_destroy(layout);
}

static void every_field_changes_the_layout_hash(void **state)
{
    (void)state;
    static const struct {
        const char *targets;
        uint32_t rank;
        float alpha;
    } cases[] = {{"all", 4, 8},    {"all", 5, 8},    {"all", 4, 9},
                 {"attn_q", 4, 8}, {"attn_k", 4, 8}, {"attn_q,attn_k", 4, 8}};
    linnet_hash hashes[ARRAY_LEN(cases)];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_layout *layout = layout_of(cases[i].targets, cases[i].rank, cases[i].alpha);
        linnet_layout *copy = linnet_layout_copy(layout);
        linnet_hash copied = linnet_layout_hash(copy);
        hashes[i] = linnet_layout_hash(layout);
        assert_true(linnet_layout_equal(layout, copy));
        assert_true(linnet_hash_equal(&hashes[i], &copied));
        for (size_t k = 0; k < i; k++)
            assert_false(linnet_hash_equal(&hashes[i], &hashes[k]));
        copy->entries[0].rows++;
        assert_false(linnet_layout_equal(layout, copy));
        copied = linnet_layout_hash(copy);
        assert_false(linnet_hash_equal(&hashes[i], &copied));
        linnet_layout_destroy(layout);
        linnet_layout_destroy(copy);
    }
}

/* The canonical bytes, written out here once more: alpha, n, then name, rank, rows, columns, dtype, offsets.
 */
static void the_layout_hash_is_over_the_canonical_bytes(void **state)
{
    (void)state;
    linnet_layout *layout = layout_of("attn_q", 3, 6);
    linnet_buffer b = {0};
    uint8_t alpha[4];
    linnet_store_f32(alpha, 6);
    linnet_buffer_append(&b, alpha, 4);
    linnet_buffer_append_le32(&b, 2);
    for (unsigned layer = 0; layer < 2; layer++) {
        linnet_buffer_append_le16(&b, 19);
        linnet_buffer_append_format(&b, "blk.%u.attn_q.weight", layer);
        linnet_buffer_append_le32(&b, 3);
        linnet_buffer_append_le32(&b, 8);
        linnet_buffer_append_le32(&b, 8);
        linnet_buffer_append_u8(&b, 0);
        linnet_buffer_append_le64(&b, 48 * layer);
        linnet_buffer_append_le64(&b, 48 * layer + 24);
    }
    linnet_hash want = linnet_hash_of(LINNET_LABEL_LAYOUT, b.bytes, b.n_bytes),
                got = linnet_layout_hash(layout);
    assert_true(linnet_hash_equal(&want, &got));
    linnet_buffer_release(&b);
    linnet_layout_destroy(layout);
}

static void layouts_that_cannot_be_are_refused(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_layout *layout = NULL;
    assert_int_equal(linnet_layout_create(model, 0, 8, 1, &layout, &err), LINNET_ERR_RANGE);
    assert_int_equal(linnet_layout_create(model, 257, 8, 1, &layout, &err), LINNET_ERR_RANGE);
    assert_int_equal(linnet_layout_create(model, 4, 0, 1, &layout, &err), LINNET_ERR_RANGE);
    assert_int_equal(linnet_layout_create(model, 4, NAN, 1, &layout, &err), LINNET_ERR_RANGE);
    assert_int_equal(linnet_layout_create(model, 4, 8, 0, &layout, &err), LINNET_ERR_ARG);
    assert_int_equal(linnet_layout_create(model, 4, 8, 1u << LINNET_TARGETS, &layout, &err), LINNET_ERR_ARG);
    assert_int_equal(linnet_layout_create(model, 4, 8, 0x100, &layout, &err), LINNET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "'cls.weight'"));
    assert_int_equal(linnet_layout_create(model, 4, 8, 0x80, &layout, &err), LINNET_ERR_UNSUPPORTED);
    assert_null(layout);
}

/* A model with these keys and one attn_q of 8 x `rows`. */
static linnet_status create_on(const char *architecture, uint32_t n_layers, uint32_t n_heads, uint64_t rows,
                               linnet_error *err)
{
    static const float weights[8 * 12];
    linnet_gguf *gguf = NULL;
    linnet_layout *layout = NULL;
    linnet_error write_err = {0};
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_gguf_writer_text(writer, "general.architecture", architecture);
    linnet_gguf_writer_u32(writer, "llama.block_count", n_layers);
    linnet_gguf_writer_u32(writer, "llama.attention.head_count", n_heads);
    linnet_gguf_writer_tensor(writer, "blk.0.attn_q.weight", LINNET_TENSOR_F32, 2,
                              (const uint64_t[]){8, rows}, weights, (size_t)rows * 32);
    assert_ok(linnet_gguf_writer_write(writer, in_folder("odd.gguf"), &write_err), &write_err);
    linnet_gguf_writer_destroy(writer);
    assert_ok(linnet_gguf_open(in_folder("odd.gguf"), &gguf, &write_err), &write_err);
    linnet_status status = linnet_layout_create(gguf, 4, 8, 1, &layout, err);
    linnet_layout_destroy(layout);
    linnet_gguf_close(gguf);
    return status;
}

static void models_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *architecture;
        uint32_t n_layers, n_heads;
        uint64_t rows;
        linnet_status want;
        const char *message;
    } cases[] = {
        {"llama", 1, 2, 8, LINNET_OK, ""},
        {"gptj", 1, 2, 8, LINNET_ERR_UNSUPPORTED, "architecture 'gptj'; linnet runs llama, "},
        {"llama", 2, 2, 8, LINNET_ERR_UNSUPPORTED, "no tensor 'blk.1.attn_q.weight'"},
        {"llama", 0, 2, 8, LINNET_ERR_RANGE, "0 layers"},
        {"llama", UINT32_MAX, 2, 8, LINNET_ERR_RANGE, "layers"},
        {"llama", 1, 0, 8, LINNET_ERR_RANGE, "0 and 0 heads"},
        {"llama", 1, 3, 8, LINNET_ERR_FORMAT, "3 even heads"},
        {"llama", 1, 4, 12, LINNET_ERR_FORMAT, "4 even heads"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_error err = {0};
        linnet_status got =
            create_on(cases[i].architecture, cases[i].n_layers, cases[i].n_heads, cases[i].rows, &err);
        if (got != cases[i].want || !strstr(err.message, cases[i].message))
            fail_msg("case %zu: got %s: %s", i, linnet_status_name(got), err.message);
    }
}

static void training_starts_from_orthonormal_rows(void **state)
{
    (void)state;
    linnet_layout *layout = layout_of("all", 6, 12);
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    assert_ok(linnet_adapter_create(layout, &adapter, &err), &err);
    for (size_t i = 0; i < layout->n_parameters; i++)
        assert_true(adapter->data[i] == 0);
    linnet_adapter_init(adapter, 42);
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        const float *a = linnet_adapter_a(adapter, e), *b = linnet_adapter_b(adapter, e);
        for (size_t r = 0; r < entry->rank; r++)
            for (size_t s = 0; s <= r; s++) {
                double dot = 0;
                for (size_t c = 0; c < entry->columns; c++)
                    dot += (double)a[r * entry->columns + c] * a[s * entry->columns + c];
                assert_true(fabs(dot - (r == s ? 1.0 / 3 : 0)) < 1e-7);
            }
        for (size_t i = 0; i < (size_t)entry->rows * entry->rank; i++)
            assert_true(b[i] == 0);
    }
    linnet_adapter_destroy(adapter);
    linnet_layout_destroy(layout);
}

static void a_rank_above_the_columns_has_rows_of_the_norm(void **state)
{
    (void)state;
    linnet_layout *layout = layout_of("attn_q", 11, 8); /* of 8 columns */
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    assert_ok(linnet_adapter_create(layout, &adapter, &err), &err);
    linnet_adapter_init(adapter, 1);
    for (size_t r = 0; r < 11; r++) {
        double dot = 0;
        for (size_t c = 0; c < 8; c++)
            dot += (double)linnet_adapter_a(adapter, 0)[r * 8 + c] * linnet_adapter_a(adapter, 0)[r * 8 + c];
        assert_true(fabs(dot - 1.0 / 3) < 1e-6);
    }
    assert_ok(linnet_adapter_check_finite(adapter, &err), &err);
    linnet_adapter_destroy(adapter);
    linnet_layout_destroy(layout);
}

static void the_start_depends_on_seed_and_name_only(void **state)
{
    (void)state;
    linnet_adapter *all = random_adapter(model, "all", 4, 8, 1),
                   *few = random_adapter(model, "ffn_up,attn_v", 4, 99, 2);
    linnet_adapter *other = random_adapter(model, "all", 4, 8, 1);
    linnet_adapter_init(all, 5);
    linnet_adapter_init(few, 5);
    linnet_adapter_init(other, 6);
    for (size_t e = 0; e < few->layout->n_entries; e++) {
        const linnet_layout_entry *entry = &few->layout->entries[e];
        size_t same = (size_t)(linnet_layout_find(all->layout, entry->name) - all->layout->entries);
        assert_memory_equal(linnet_adapter_a(few, e), linnet_adapter_a(all, same),
                            (size_t)entry->rank * entry->columns * sizeof(float));
    }
    assert_memory_not_equal(all->data, other->data, 32 * sizeof(float));
    assert_memory_not_equal(linnet_adapter_a(all, 0), linnet_adapter_a(all, 1), 32 * sizeof(float));
    linnet_adapter_destroy(all);
    linnet_adapter_destroy(few);
    linnet_adapter_destroy(other);
}

static void what_is_packed_is_unpacked_and_hashed(void **state)
{
    (void)state;
    linnet_adapter *adapter = random_adapter(model, "all", 5, 10, 3), *back = NULL;
    linnet_buffer bytes = {0};
    linnet_error err = {0};
    assert_ok(linnet_adapter_pack(adapter, &bytes, &err), &err);
    assert_int_equal(bytes.n_bytes, 48 + 4 * adapter->layout->n_parameters);
    assert_ok(linnet_adapter_unpack(adapter->layout, bytes.bytes, bytes.n_bytes, &back, &err), &err);
    assert_same_adapter(adapter, back);
    linnet_hash streamed = linnet_adapter_hash(adapter);
    linnet_hash whole = linnet_hash_of(LINNET_LABEL_OBJECT, bytes.bytes, bytes.n_bytes);
    assert_true(linnet_hash_equal(&streamed, &whole));
    back->data[7] += 1;
    linnet_hash changed = linnet_adapter_hash(back);
    assert_false(linnet_hash_equal(&streamed, &changed));
    linnet_adapter_destroy(back);
    linnet_adapter_destroy(adapter);
    linnet_buffer_release(&bytes);
}

static void other_bytes_are_not_unpacked(void **state)
{
    (void)state;
    linnet_adapter *adapter = random_adapter(model, "attn_q", 2, 4, 3), *back = NULL;
    linnet_layout *other = layout_of("attn_q", 2, 5);
    linnet_buffer bytes = {0};
    linnet_error err = {0};
    assert_ok(linnet_adapter_pack(adapter, &bytes, &err), &err);
    for (size_t n = 0; n < bytes.n_bytes; n++)
        assert_int_equal(linnet_adapter_unpack(adapter->layout, bytes.bytes, n, &back, &err),
                         LINNET_ERR_FORMAT);
    assert_int_equal(linnet_adapter_unpack(other, bytes.bytes, bytes.n_bytes, &back, &err),
                     LINNET_ERR_MISMATCH);
    linnet_buffer_append_u8(&bytes, 0);
    assert_int_equal(linnet_adapter_unpack(adapter->layout, bytes.bytes, bytes.n_bytes, &back, &err),
                     LINNET_ERR_FORMAT);
    bytes.bytes[4] = 2;
    assert_int_equal(linnet_adapter_unpack(adapter->layout, bytes.bytes, bytes.n_bytes - 1, &back, &err),
                     LINNET_ERR_UNSUPPORTED);
    bytes.bytes[0] = 'X';
    assert_int_equal(linnet_adapter_unpack(adapter->layout, bytes.bytes, bytes.n_bytes - 1, &back, &err),
                     LINNET_ERR_FORMAT);
    assert_null(back);
    linnet_layout_destroy(other);
    linnet_adapter_destroy(adapter);
    linnet_buffer_release(&bytes);
}

static void a_value_that_is_no_number_is_named(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    linnet_adapter *adapter = random_adapter(model, "attn_k", 2, 4, 3);
    const linnet_layout_entry *entry = &adapter->layout->entries[1];
    linnet_error err = {0};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        adapter->data[entry->b_offset + 3] = bad[i];
        assert_int_equal(linnet_adapter_check_finite(adapter, &err), LINNET_ERR_RANGE);
        assert_non_null(strstr(err.message, "value 3 of 'blk.1.attn_k.weight.lora_b'"));
    }
    adapter->data[entry->b_offset + 3] = 0;
    assert_ok(linnet_adapter_check_finite(adapter, &err), &err);
    linnet_adapter_destroy(adapter);
}

static void deltas_gather_and_scatter_one_factor(void **state)
{
    (void)state;
    linnet_adapter *before = random_adapter(model, "all", 3, 6, 1),
                   *after = random_adapter(model, "all", 3, 6, 2);
    linnet_adapter *moved = NULL;
    const linnet_layout *layout = before->layout;
    linnet_error err = {0};
    assert_ok(linnet_adapter_copy(before, &moved, &err), &err);
    static const linnet_factors factors[] = {LINNET_FACTOR_A, LINNET_FACTOR_B};
    for (size_t f = 0; f < 2; f++) {
        size_t n = linnet_factors_length(layout, factors[f]);
        float *delta = malloc(n * sizeof(float)), *of_after = malloc(n * sizeof(float)),
              *of_before = malloc(n * sizeof(float));
        linnet_delta_of(after, before, factors[f], delta);
        linnet_factor_gather(layout, factors[f], after->data, of_after);
        linnet_factor_gather(layout, factors[f], before->data, of_before);
        for (size_t i = 0; i < n; i++)
            assert_true(delta[i] == of_after[i] - of_before[i]);
        const linnet_layout_entry *last = &layout->entries[layout->n_entries - 1];
        size_t n_last = last->rank * (factors[f] == LINNET_FACTOR_A ? last->columns : last->rows);
        size_t offset = factors[f] == LINNET_FACTOR_A ? last->a_offset : last->b_offset;
        assert_memory_equal(of_after + n - n_last, after->data + offset, n_last * sizeof(float));
        linnet_factor_scatter(layout, factors[f], delta, moved->data);
        free(delta);
        free(of_after);
        free(of_before);
    }
    for (size_t i = 0; i < layout->n_parameters; i++)
        assert_true(fabsf(moved->data[i] - after->data[i]) < 1e-6f);
    linnet_adapter_destroy(before);
    linnet_adapter_destroy(after);
    linnet_adapter_destroy(moved);
}

/* ---- 16-bit floats ---- */

static double half_by_definition(uint16_t half)
{
    int exponent = half >> 10 & 31, mantissa = half & 0x3ff;
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return half & 0x8000 ? -magnitude : magnitude;
}

static void halves_widen_and_narrow_back(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        float wide = linnet_f16_widen((uint16_t)half);
        if ((half & 0x7c00) == 0x7c00) {
            assert_true((half & 0x3ff) ? isnan(wide) : isinf(wide) && (wide < 0) == (half >> 15 == 1));
            continue;
        }
        assert_true(wide == half_by_definition((uint16_t)half));
        assert_int_equal(linnet_f16_narrow(wide), half);
        if ((half & 0x7fff) == 0x7bff)
            continue;
        /* Between neighbours: below the middle to this one, above to the next, the middle to the even one. */
        double next = half_by_definition((uint16_t)(half + 1)), middle = (wide + next) / 2;
        assert_int_equal(linnet_f16_narrow((float)middle), half & 1 ? half + 1 : half);
        assert_int_equal(linnet_f16_narrow(nextafterf((float)middle, wide)), half);
        assert_int_equal(linnet_f16_narrow(nextafterf((float)middle, (float)next)), half + 1);
    }
    assert_int_equal(linnet_f16_narrow(65519.996f), 0x7bff);
    assert_int_equal(linnet_f16_narrow(65520), 0x7c00);
    assert_int_equal(linnet_f16_narrow(-1e30f), 0xfc00);
    assert_int_equal(linnet_f16_narrow(NAN) & 0x7fff, 0x7e00);
    assert_true(linnet_bf16_widen(0x3f80) == 1 && linnet_bf16_widen(0xc040) == -3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_are_known_by_both_names),
        cmocka_unit_test(a_layout_follows_the_model),
        cmocka_unit_test(every_field_changes_the_layout_hash),
        cmocka_unit_test(the_layout_hash_is_over_the_canonical_bytes),
        cmocka_unit_test(layouts_that_cannot_be_are_refused),
        cmocka_unit_test(models_that_do_not_fit_are_refused),
        cmocka_unit_test(training_starts_from_orthonormal_rows),
        cmocka_unit_test(a_rank_above_the_columns_has_rows_of_the_norm),
        cmocka_unit_test(the_start_depends_on_seed_and_name_only),
        cmocka_unit_test(what_is_packed_is_unpacked_and_hashed),
        cmocka_unit_test(other_bytes_are_not_unpacked),
        cmocka_unit_test(a_value_that_is_no_number_is_named),
        cmocka_unit_test(deltas_gather_and_scatter_one_factor),
        cmocka_unit_test(halves_widen_and_narrow_back),
    };
    return cmocka_run_group_tests(tests, make_model, drop_model);
}
