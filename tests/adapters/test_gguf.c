/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF files: what is written is read; every count, size and place of a hostile file is checked before use.
 */
#include "fixture.h"

#include "adapters/limits.h"

/* ---- a header in the making ---- */

static void put_text(linnet_buffer *b, const char *text)
{
    linnet_buffer_append_le64(b, strlen(text));
    linnet_buffer_append_text(b, text);
}

static void put_head(linnet_buffer *b, uint32_t version, uint64_t n_tensors, uint64_t n_values)
{
    linnet_buffer_append_text(b, "GGUF");
    linnet_buffer_append_le32(b, version);
    linnet_buffer_append_le64(b, n_tensors);
    linnet_buffer_append_le64(b, n_values);
}

static void put_u32(linnet_buffer *b, const char *name, uint32_t value)
{
    put_text(b, name);
    linnet_buffer_append_le32(b, LINNET_GGUF_U32);
    linnet_buffer_append_le32(b, value);
}

static void put_tensor(linnet_buffer *b, const char *name, uint64_t columns, uint64_t rows, uint32_t type,
                       uint64_t offset)
{
    put_text(b, name);
    linnet_buffer_append_le32(b, 2);
    linnet_buffer_append_le64(b, columns);
    linnet_buffer_append_le64(b, rows);
    linnet_buffer_append_le32(b, type);
    linnet_buffer_append_le64(b, offset);
}

static void put_data(linnet_buffer *b, size_t alignment, size_t n_bytes)
{
    while (b->n_bytes % alignment != 0)
        linnet_buffer_append_u8(b, 0);
    for (size_t i = 0; i < n_bytes; i++)
        linnet_buffer_append_u8(b, (uint8_t)i);
}

/* Open the bytes, want this status and this text in the message; releases the bytes. */
static void expect(linnet_buffer *b, linnet_status want, const char *message)
{
    linnet_error err = {0};
    linnet_gguf *gguf = NULL;
    linnet_status got = linnet_gguf_open_bytes(b->bytes, b->n_bytes, &gguf, &err);
    if (got != want || (message && !strstr(err.message, message)))
        fail_msg("got %s (%s), want %s (%s)", linnet_status_name(got), err.message, linnet_status_name(want),
                 message ? message : "");
    if (want != LINNET_OK)
        assert_null(gguf);
    linnet_gguf_close(gguf);
    linnet_buffer_release(b);
}

static void header_is_checked_before_use(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n_bytes;
        linnet_status want;
        const char *message;
    } cases[] = {
        {"", 0, LINNET_ERR_FORMAT, "GGUF"},
        {"GGUX\3\0\0\0", 8, LINNET_ERR_FORMAT, "GGUF"},
        {"GGUF\3\0", 6, LINNET_ERR_FORMAT, "cut short"},
        {"GGUF\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, LINNET_ERR_UNSUPPORTED, "version 1"},
        {"GGUF\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, LINNET_ERR_UNSUPPORTED, "version 4"},
        {"GGUF\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, LINNET_ERR_UNSUPPORTED, "big-endian"},
        {"GGUF\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, LINNET_OK, NULL},
        {"GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, LINNET_OK, NULL},
        {"GGUF\3\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, LINNET_ERR_FORMAT, "do not fit"},
        {"GGUF\3\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 24, LINNET_ERR_FORMAT, "do not fit"},
        {"GGUF\3\0\0\0\377\377\377\377\377\377\377\377\0\0\0\0\0\0\0\0", 24, LINNET_ERR_FORMAT, "do not fit"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer b = {0};
        linnet_buffer_append(&b, cases[i].bytes, cases[i].n_bytes);
        expect(&b, cases[i].want, cases[i].message);
    }
}

static void counts_have_caps(void **state)
{
    (void)state;
    linnet_buffer b = {0};
    put_head(&b, 3, 0, LINNET_GGUF_VALUES_MAX + 1);
    put_data(&b, 1, (LINNET_GGUF_VALUES_MAX + 1) * 13);
    expect(&b, LINNET_ERR_LIMIT, "at most");
    put_head(&b, 3, LINNET_GGUF_TENSORS_MAX + 1, 0);
    put_data(&b, 1, (LINNET_GGUF_TENSORS_MAX + 1) * 32);
    expect(&b, LINNET_ERR_LIMIT, "at most");
}

static void bad_values_are_refused(void **state)
{
    (void)state;
    linnet_buffer b = {0};
    put_head(&b, 3, 0, 2);
    put_u32(&b, "twice", 1);
    put_u32(&b, "twice", 2);
    expect(&b, LINNET_ERR_FORMAT, "'twice' occurs twice");

    put_head(&b, 3, 0, 1);
    put_text(&b, "kind");
    linnet_buffer_append_le32(&b, 13);
    linnet_buffer_append_le64(&b, 0);
    expect(&b, LINNET_ERR_FORMAT, "key 'kind': unknown value kind 13");

    put_head(&b, 3, 0, 1);
    put_text(&b, "truth");
    linnet_buffer_append_le32(&b, LINNET_GGUF_BOOL);
    linnet_buffer_append_u8(&b, 2);
    expect(&b, LINNET_ERR_FORMAT, "boolean byte of 2");

    put_head(&b, 3, 0, 1);
    put_text(&b, "nested");
    linnet_buffer_append_le32(&b, LINNET_GGUF_ARRAY);
    linnet_buffer_append_le32(&b, LINNET_GGUF_ARRAY);
    linnet_buffer_append_le64(&b, 1);
    expect(&b, LINNET_ERR_UNSUPPORTED, "array of arrays");

    put_head(&b, 3, 0, 1);
    linnet_buffer_append_le64(&b, 3);
    linnet_buffer_append(&b, "a\0b", 3);
    linnet_buffer_append_le32(&b, LINNET_GGUF_U32);
    linnet_buffer_append_le32(&b, 1);
    expect(&b, LINNET_ERR_FORMAT, "zero byte");
}

static void lengths_past_the_end_are_refused(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {9, 1000, UINT32_MAX, UINT64_C(1) << 61, UINT64_MAX - 7, UINT64_MAX};
    static const uint32_t kinds[] = {LINNET_GGUF_U8, LINNET_GGUF_F64, LINNET_GGUF_STRING};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        linnet_buffer b = {0};
        put_head(&b, 3, 0, 1); /* a key name this long */
        linnet_buffer_append_le64(&b, lengths[i]);
        linnet_buffer_append_text(&b, "12345678");
        expect(&b, LINNET_ERR_FORMAT, NULL);
        put_head(&b, 3, 0, 1); /* a string this long */
        put_text(&b, "text");
        linnet_buffer_append_le32(&b, LINNET_GGUF_STRING);
        linnet_buffer_append_le64(&b, lengths[i]);
        linnet_buffer_append_text(&b, "12345678");
        expect(&b, LINNET_ERR_FORMAT, "cut short");
        for (size_t k = 0; k < ARRAY_LEN(kinds); k++) { /* an array this long */
            put_head(&b, 3, 0, 1);
            put_text(&b, "array");
            linnet_buffer_append_le32(&b, LINNET_GGUF_ARRAY);
            linnet_buffer_append_le32(&b, kinds[k]);
            linnet_buffer_append_le64(&b, lengths[i]);
            linnet_buffer_append_text(&b, "12345678");
            expect(&b, LINNET_ERR_FORMAT, "cut short");
        }
    }
}

static void bad_tensors_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t columns, rows;
        uint32_t type;
        uint64_t offset;
        linnet_status want;
        const char *message;
    } cases[] = {
        {"ok", 4, 4, LINNET_TENSOR_F32, 0, LINNET_OK, NULL},
        {"ok", 4, 4, LINNET_TENSOR_F32, 64, LINNET_OK, NULL},
        {"ends past the file", 4, 4, LINNET_TENSOR_F32, 96, LINNET_ERR_FORMAT, "outside"},
        {"starts past the file", 4, 4, LINNET_TENSOR_F32, 160, LINNET_ERR_FORMAT, "outside"},
        {"wraps", 4, 4, LINNET_TENSOR_F32, UINT64_MAX - 31, LINNET_ERR_FORMAT, "outside"},
        {"not aligned", 4, 4, LINNET_TENSOR_F32, 16, LINNET_ERR_FORMAT, "not aligned to 32"},
        {"no rows", 4, 0, LINNET_TENSOR_F32, 0, LINNET_ERR_FORMAT, "impossible dimension 0"},
        {"product wraps", UINT64_C(1) << 32, UINT64_C(1) << 32, LINNET_TENSOR_F32, 0, LINNET_ERR_FORMAT,
         "impossible"},
        {"too many bytes", UINT64_C(1) << 62, 1, LINNET_TENSOR_F32, 0, LINNET_ERR_FORMAT, "impossible"},
        {"half a block", 48, 1, LINNET_TENSOR_Q8_0, 0, LINNET_ERR_FORMAT, "no multiple of 32 (Q8_0)"},
        {"blocks", 32, 3, LINNET_TENSOR_Q8_0, 0, LINNET_OK, NULL},
        {"blocks", 32, 7, LINNET_TENSOR_Q4_0, 0, LINNET_OK, NULL},
        {"blocks past the file", 32, 8, LINNET_TENSOR_Q4_0, 0, LINNET_ERR_FORMAT, "outside"},
        {"six", 256, 1, 16, 0, LINNET_ERR_UNSUPPORTED, "tensor 'six': tensor type 16 (IQ2_XXS)"},
        {"future", 256, 1, 99, 0, LINNET_ERR_UNSUPPORTED, "tensor type 99 (unknown)"},
        {"a name of sixty-five bytes 23456789012345678901234567890123456789", 4, 4, LINNET_TENSOR_F32, 0,
         LINNET_ERR_FORMAT, "a name of 65 bytes"},
        {"", 4, 4, LINNET_TENSOR_F32, 0, LINNET_ERR_FORMAT, "empty"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer b = {0};
        put_head(&b, 3, 1, 0);
        put_tensor(&b, cases[i].name, cases[i].columns, cases[i].rows, cases[i].type, cases[i].offset);
        put_data(&b, 32, 128);
        expect(&b, cases[i].want, cases[i].message);
    }
}

static void dimensions_are_one_to_four(void **state)
{
    (void)state;
    for (uint32_t n_dims = 0; n_dims <= 5; n_dims++) {
        linnet_buffer b = {0};
        put_head(&b, 3, 1, 0);
        put_text(&b, "t");
        linnet_buffer_append_le32(&b, n_dims);
        for (uint32_t d = 0; d < n_dims; d++)
            linnet_buffer_append_le64(&b, 2);
        linnet_buffer_append_le32(&b, LINNET_TENSOR_F32);
        linnet_buffer_append_le64(&b, 0);
        put_data(&b, 32, 64);
        expect(&b, n_dims >= 1 && n_dims <= 4 ? LINNET_OK : LINNET_ERR_FORMAT, NULL);
    }
}

static void tensors_neither_overlap_nor_repeat(void **state)
{
    (void)state;
    linnet_buffer b = {0};
    put_head(&b, 3, 2, 0);
    put_tensor(&b, "first", 12, 1, LINNET_TENSOR_F32, 0); /* 48 bytes */
    put_tensor(&b, "second", 8, 1, LINNET_TENSOR_F32, 32);
    put_data(&b, 32, 128);
    expect(&b, LINNET_ERR_FORMAT, "'first' and 'second' overlap");
    put_head(&b, 3, 2, 0);
    put_tensor(&b, "second", 8, 1, LINNET_TENSOR_F32, 64);
    put_tensor(&b, "first", 12, 1, LINNET_TENSOR_F32, 0);
    put_data(&b, 32, 128);
    expect(&b, LINNET_OK, NULL);
    put_head(&b, 3, 2, 0);
    put_tensor(&b, "same", 8, 1, LINNET_TENSOR_F32, 0);
    put_tensor(&b, "same", 8, 1, LINNET_TENSOR_F32, 32);
    put_data(&b, 32, 128);
    expect(&b, LINNET_ERR_FORMAT, "'same' occurs twice");
}

static void alignment_comes_from_the_file(void **state)
{
    (void)state;
    static const struct {
        uint32_t alignment;
        linnet_status want;
    } cases[] = {
        {8, LINNET_OK},
        {64, LINNET_OK},
        {0, LINNET_ERR_FORMAT},
        {4, LINNET_ERR_FORMAT},
        {24, LINNET_ERR_FORMAT},
        {131072, LINNET_ERR_FORMAT},
        {UINT32_MAX, LINNET_ERR_FORMAT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer b = {0};
        put_head(&b, 3, 1, 1);
        put_u32(&b, "general.alignment", cases[i].alignment);
        put_tensor(&b, "t", 8, 1, LINNET_TENSOR_F32, 0);
        put_data(&b, cases[i].want == LINNET_OK ? cases[i].alignment : 32, 32);
        expect(&b, cases[i].want, NULL);
    }
}

/* ---- whole files ---- */

/* Read everything that the getters offer; under a sanitizer, a wrong bound shows. */
static uint64_t walk(const linnet_gguf *gguf)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < linnet_gguf_n_values(gguf); i++) {
        const linnet_gguf_value *value = linnet_gguf_value_at(gguf, i);
        linnet_text text;
        double number = 0;
        for (size_t at = 0; linnet_gguf_array_text(value, &at, &text);)
            for (size_t k = 0; k < text.n_bytes; k++)
                sum += (uint8_t)text.bytes[k];
        for (uint64_t k = 0; linnet_gguf_array_number(value, k, &number) == LINNET_OK; k++)
            sum += number > 0;
    }
    for (size_t i = 0; i < linnet_gguf_n_tensors(gguf); i++)
        for (size_t k = 0; k < linnet_gguf_tensor_at(gguf, i)->n_bytes; k++)
            sum += linnet_gguf_tensor_at(gguf, i)->bytes[k];
    return sum;
}

/* Every kind once, an array of each sort, two tensors; the last tensor ends with the file. */
static linnet_buffer sample_file(void)
{
    linnet_buffer b = {0};
    put_head(&b, 3, 2, 5);
    put_u32(&b, "number", 77);
    put_text(&b, "text");
    linnet_buffer_append_le32(&b, LINNET_GGUF_STRING);
    put_text(&b, "hello");
    put_text(&b, "words");
    linnet_buffer_append_le32(&b, LINNET_GGUF_ARRAY);
    linnet_buffer_append_le32(&b, LINNET_GGUF_STRING);
    linnet_buffer_append_le64(&b, 3);
    put_text(&b, "one");
    put_text(&b, "");
    put_text(&b, "three");
    put_text(&b, "numbers");
    linnet_buffer_append_le32(&b, LINNET_GGUF_ARRAY);
    linnet_buffer_append_le32(&b, LINNET_GGUF_I16);
    linnet_buffer_append_le64(&b, 2);
    linnet_buffer_append_le16(&b, 0xfffe);
    linnet_buffer_append_le16(&b, 300);
    put_text(&b, "truth");
    linnet_buffer_append_le32(&b, LINNET_GGUF_BOOL);
    linnet_buffer_append_u8(&b, 1);
    put_tensor(&b, "b", 4, 2, LINNET_TENSOR_F32, 0);
    put_tensor(&b, "a", 32, 1, LINNET_TENSOR_Q8_0, 32);
    put_data(&b, 32, 32 + 34);
    return b;
}

static void values_are_read_by_their_kind(void **state)
{
    (void)state;
    linnet_buffer b = sample_file();
    linnet_error err = {0};
    linnet_gguf *gguf = NULL;
    uint32_t number = 0;
    bool truth = false;
    float real = 0;
    double element = 0;
    linnet_text text = {"", 0};
    size_t at = 0;
    assert_ok(linnet_gguf_open_bytes(b.bytes, b.n_bytes, &gguf, &err), &err);
    assert_ok(linnet_gguf_get_u32(gguf, "number", &number, &err), &err);
    assert_int_equal(number, 77);
    assert_ok(linnet_gguf_get_text(gguf, "text", &text, &err), &err);
    assert_true(linnet_text_is(text, "hello"));
    assert_ok(linnet_gguf_get_bool(gguf, "truth", &truth, &err), &err);
    assert_true(truth);
    assert_int_equal(linnet_gguf_get_u32(gguf, "absent", &number, &err), LINNET_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "absent"));
    assert_int_equal(linnet_gguf_get_u32(gguf, "text", &number, &err), LINNET_ERR_FORMAT);
    assert_int_equal(linnet_gguf_get_f32(gguf, "number", &real, &err), LINNET_ERR_FORMAT);
    assert_int_equal(linnet_gguf_get_text(gguf, "words", &text, &err), LINNET_ERR_FORMAT);
    const linnet_gguf_value *words = linnet_gguf_find(gguf, "words"),
                            *numbers = linnet_gguf_find(gguf, "numbers");
    static const char *const wanted[] = {"one", "", "three"};
    for (size_t i = 0; i < 3; i++) {
        assert_true(linnet_gguf_array_text(words, &at, &text));
        assert_true(linnet_text_is(text, wanted[i]));
    }
    assert_false(linnet_gguf_array_text(words, &at, &text));
    assert_int_equal(linnet_gguf_array_number(words, 0, &element), LINNET_ERR_FORMAT);
    assert_int_equal(linnet_gguf_array_number(numbers, 0, &element), LINNET_OK);
    assert_true(element == -2);
    assert_int_equal(linnet_gguf_array_number(numbers, 1, &element), LINNET_OK);
    assert_true(element == 300);
    assert_int_equal(linnet_gguf_array_number(numbers, 2, &element), LINNET_ERR_RANGE);
    assert_non_null(linnet_gguf_find_tensor(gguf, "a"));
    assert_int_equal(linnet_gguf_find_tensor(gguf, "a")->n_bytes, 34);
    assert_null(linnet_gguf_find_tensor(gguf, "c"));
    linnet_gguf_close(gguf);
    linnet_buffer_release(&b);
}

static void integers_convert_where_they_fit(void **state)
{
    (void)state;
    static const struct {
        uint32_t kind;
        uint64_t bits;
        size_t n_bytes;
        linnet_status want;
        uint32_t value;
    } cases[] = {
        {LINNET_GGUF_U8, 200, 1, LINNET_OK, 200},
        {LINNET_GGUF_I8, 0xff, 1, LINNET_ERR_RANGE, 0},
        {LINNET_GGUF_U16, 65535, 2, LINNET_OK, 65535},
        {LINNET_GGUF_I32, 5, 4, LINNET_OK, 5},
        {LINNET_GGUF_I32, 0x80000000, 4, LINNET_ERR_RANGE, 0},
        {LINNET_GGUF_U64, UINT32_MAX, 8, LINNET_OK, UINT32_MAX},
        {LINNET_GGUF_U64, UINT64_C(1) << 32, 8, LINNET_ERR_RANGE, 0},
        {LINNET_GGUF_I64, UINT64_MAX, 8, LINNET_ERR_RANGE, 0},
        {LINNET_GGUF_BOOL, 1, 1, LINNET_ERR_FORMAT, 0},
        {LINNET_GGUF_F64, 0, 8, LINNET_ERR_FORMAT, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer b = {0};
        linnet_error err = {0};
        linnet_gguf *gguf = NULL;
        uint8_t bytes[8];
        uint32_t value = 0;
        linnet_store_le64(bytes, cases[i].bits);
        put_head(&b, 3, 0, 1);
        put_text(&b, "k");
        linnet_buffer_append_le32(&b, cases[i].kind);
        linnet_buffer_append(&b, bytes, cases[i].n_bytes);
        assert_ok(linnet_gguf_open_bytes(b.bytes, b.n_bytes, &gguf, &err), &err);
        linnet_status got = linnet_gguf_get_u32(gguf, "k", &value, &err);
        if (got != cases[i].want || value != cases[i].value)
            fail_msg("case %zu: got %s, %u", i, linnet_status_name(got), (unsigned)value);
        linnet_gguf_close(gguf);
        linnet_buffer_release(&b);
    }
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    linnet_buffer b = sample_file();
    for (size_t n = 0; n < b.n_bytes; n++) {
        linnet_error err = {0};
        linnet_gguf *gguf = NULL;
        uint8_t *cut = malloc(n + 1); /* its own block, so that a sanitizer sees the end */
        assert_non_null(cut);
        memcpy(cut, b.bytes, n);
        linnet_status status = linnet_gguf_open_bytes(cut, n, &gguf, &err);
        if (status == LINNET_OK)
            fail_msg("opened with %zu of %zu bytes", n, b.n_bytes);
        assert_null(gguf);
        free(cut);
    }
    linnet_buffer_release(&b);
}

static void a_changed_byte_never_leads_out_of_the_file(void **state)
{
    (void)state;
    linnet_buffer b = sample_file();
    size_t n_opened = 0;
    for (size_t i = 0; i < b.n_bytes; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            linnet_error err = {0};
            linnet_gguf *gguf = NULL;
            b.bytes[i] ^= (uint8_t)(1u << bit);
            if (linnet_gguf_open_bytes(b.bytes, b.n_bytes, &gguf, &err) == LINNET_OK) {
                (void)walk(gguf);
                n_opened++;
            }
            linnet_gguf_close(gguf);
            b.bytes[i] ^= (uint8_t)(1u << bit);
        }
    assert_true(n_opened > 0); /* changed data and names are still files */
    linnet_buffer_release(&b);
}

static linnet_status produce_fives(void *context, const char *name, void *bytes, size_t n_bytes,
                                   linnet_error *err)
{
    if (strcmp(name, context) != 0)
        return linnet_fail(err, LINNET_ERR_INTERNAL, "not asked for '%s'", name);
    memset(bytes, 5, n_bytes);
    return LINNET_OK;
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    static const float weights[6] = {1, 2, 3, 4, 5, 6};
    static char produced_name[] = "produced";
    linnet_buffer b = sample_file();
    linnet_error err = {0};
    linnet_gguf *from = NULL, *to = NULL;
    assert_ok(linnet_gguf_open_bytes(b.bytes, b.n_bytes, &from, &err), &err);
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    for (size_t i = 0; i < linnet_gguf_n_values(from); i++)
        linnet_gguf_writer_copy(writer, linnet_gguf_value_at(from, i));
    linnet_gguf_writer_u32(writer, "general.alignment", 128);
    linnet_gguf_writer_text(writer, "new.text", "");
    linnet_gguf_writer_f32(writer, "new.real", -0.5f);
    linnet_gguf_writer_tensor(writer, "borrowed", LINNET_TENSOR_F32, 2, (const uint64_t[]){3, 2}, weights,
                              24);
    linnet_gguf_writer_tensor_produced(writer, produced_name, LINNET_TENSOR_Q8_0, 1, (const uint64_t[]){64},
                                       68, produce_fives, produced_name);
    assert_ok(linnet_gguf_writer_write(writer, in_folder("written.gguf"), &err), &err);
    linnet_gguf_writer_destroy(writer);
    assert_ok(linnet_gguf_open(in_folder("written.gguf"), &to, &err), &err);
    assert_int_equal(linnet_gguf_n_values(to), linnet_gguf_n_values(from) + 3);
    for (size_t i = 0; i < linnet_gguf_n_values(from); i++) {
        const linnet_gguf_value *x = linnet_gguf_value_at(from, i), *y = linnet_gguf_value_at(to, i);
        assert_int_equal(x->kind, y->kind);
        assert_int_equal(x->element_kind, y->element_kind);
        assert_int_equal(x->n_elements, y->n_elements);
        assert_int_equal(x->n_bytes, y->n_bytes);
        assert_memory_equal(x->bytes, y->bytes, x->n_bytes);
    }
    const linnet_gguf_tensor *borrowed = linnet_gguf_find_tensor(to, "borrowed");
    const linnet_gguf_tensor *produced = linnet_gguf_find_tensor(to, "produced");
    assert_int_equal(borrowed->dims[0], 3);
    assert_int_equal(borrowed->dims[1], 2);
    assert_memory_equal(borrowed->bytes, weights, sizeof(weights));
    assert_int_equal((uintptr_t)produced->bytes % 128, 0);
    assert_int_equal(produced->bytes[67], 5);
    linnet_gguf_close(to);
    linnet_gguf_close(from);
    linnet_buffer_release(&b);
}

static void the_writer_keeps_its_first_error(void **state)
{
    (void)state;
    static const float weights[6];
    linnet_error err = {0};
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_gguf_writer_tensor(writer, "wrong", LINNET_TENSOR_F32, 2, (const uint64_t[]){3, 2}, weights, 20);
    linnet_gguf_writer_tensor(writer, "other", 16, 2, (const uint64_t[]){3, 2}, weights, 24);
    assert_int_equal(linnet_gguf_writer_write(writer, in_folder("never.gguf"), &err), LINNET_ERR_ARG);
    assert_non_null(strstr(err.message, "'wrong'"));
    assert_int_not_equal(access(in_folder("never.gguf"), F_OK), 0);
    linnet_gguf_writer_destroy(writer);
    linnet_gguf_writer_text(NULL, "a", "b"); /* a writer that could not be created */
    assert_int_equal(linnet_gguf_writer_write(NULL, in_folder("never.gguf"), &err), LINNET_ERR_NOMEM);
}

static void a_failed_write_leaves_the_old_file_and_nothing_else(void **state)
{
    (void)state;
    static char other[] = "other";
    linnet_error err = {0};
    linnet_buffer bytes = {0};
    char command[256];
    const char *path = in_folder("kept/model.gguf");
    assert_ok(linnet_directory_create(in_folder("kept"), &err), &err);
    assert_ok(linnet_file_write(path, "old", 3, 0600, &err), &err);
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_gguf_writer_tensor_produced(writer, "t", LINNET_TENSOR_F32, 1, (const uint64_t[]){4}, 16,
                                       produce_fives, other);
    assert_int_equal(linnet_gguf_writer_write(writer, path, &err), LINNET_ERR_INTERNAL);
    linnet_gguf_writer_destroy(writer);
    assert_ok(linnet_file_read(path, 100, &bytes, &err), &err);
    assert_int_equal(bytes.n_bytes, 3);
    linnet_buffer_release(&bytes);
    (void)snprintf(command, sizeof(command), "test $(ls '%s' | wc -l) = 1", in_folder("kept"));
    assert_int_equal(system(command), 0);
}

static void real_models_open(void **state)
{
    (void)state;
    static const char *const models[] = {"models/stories3M-Q8_0.gguf", "models/stories260K-F16.gguf",
                                         "models/babyllama105-Q4_0.gguf"};
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        linnet_error err = {0};
        linnet_gguf *gguf = NULL;
        const char *path = testing_shared(models[i]);
        if (!path)
            skip();
        assert_ok(linnet_gguf_open(path, &gguf, &err), &err);
        assert_non_null(linnet_gguf_find_tensor(gguf, "token_embd.weight"));
        assert_non_null(linnet_gguf_find_tensor(gguf, "blk.0.attn_q.weight"));
        const linnet_gguf_value *tokens = linnet_gguf_find(gguf, "tokenizer.ggml.tokens");
        uint64_t n = 0;
        linnet_text text;
        for (size_t at = 0; linnet_gguf_array_text(tokens, &at, &text);)
            n++;
        assert_int_equal(n, tokens->n_elements);
        assert_true(walk(gguf) > 0);
        linnet_gguf_close(gguf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_is_checked_before_use),
        cmocka_unit_test(counts_have_caps),
        cmocka_unit_test(bad_values_are_refused),
        cmocka_unit_test(lengths_past_the_end_are_refused),
        cmocka_unit_test(bad_tensors_are_refused),
        cmocka_unit_test(dimensions_are_one_to_four),
        cmocka_unit_test(tensors_neither_overlap_nor_repeat),
        cmocka_unit_test(alignment_comes_from_the_file),
        cmocka_unit_test(values_are_read_by_their_kind),
        cmocka_unit_test(integers_convert_where_they_fit),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_changed_byte_never_leads_out_of_the_file),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(the_writer_keeps_its_first_error),
        cmocka_unit_test(a_failed_write_leaves_the_old_file_and_nothing_else),
        cmocka_unit_test(real_models_open),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
