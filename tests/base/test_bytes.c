/* SPDX-License-Identifier: Apache-2.0 */
/* Loads, stores, hex, UTF-8, the buffer and the bounded reader. */
#include "testing.h"

#include "linnet/bytes.h"

#include <stdlib.h>

static void stores_are_little_endian_and_loads_invert_them(void **state)
{
    (void)state;
    uint8_t b[9] = {0};
    linnet_store_le64(b + 1, UINT64_C(0x0102030405060708));
    assert_int_equal(b[1], 8);
    assert_int_equal(b[8], 1);
    assert_true(linnet_load_le64(b + 1) == UINT64_C(0x0102030405060708));
    assert_true(linnet_load_le32(b + 1) == UINT32_C(0x05060708));
    assert_int_equal(linnet_load_le16(b + 1), 0x0708);
    linnet_store_f32(b + 1, -1.5f);
    assert_true(linnet_load_f32(b + 1) == -1.5f);
    linnet_store_f64(b + 1, -0.1);
    assert_true(linnet_load_f64(b + 1) == -0.1);
    assert_int_equal(b[8], 0xbf); /* sign and exponent stand last */
    linnet_store_be64(b, 1);
    assert_int_equal(b[7], 1);
}

static void size_products_that_overflow_are_refused(void **state)
{
    (void)state;
    size_t product = 7;
    assert_false(linnet_size_mul(SIZE_MAX / 2 + 1, 2, &product));
    assert_int_equal(product, 7);
    assert_true(linnet_size_mul(SIZE_MAX / 2, 2, &product));
    assert_true(linnet_size_mul(SIZE_MAX, 0, &product));
    assert_false(linnet_size_add(SIZE_MAX, 1, &product));
}

static void an_array_grows_and_keeps_its_items(void **state)
{
    (void)state;
    uint32_t *items = NULL;
    size_t capacity = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        items = linnet_array_grow(items, i, &capacity, sizeof(*items));
        assert_non_null(items);
        assert_true(capacity > i);
        items[i] = i;
    }
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(items[i], i);
    size_t most = SIZE_MAX / 2 + 1, least = 0;
    assert_null(linnet_array_grow(items, most, &most, sizeof(*items)));
    assert_null(linnet_array_grow(NULL, 0, &least, SIZE_MAX / 32));
    assert_true(most == SIZE_MAX / 2 + 1 && least == 0);
    free(items);
}

static void hex_is_read_only_where_it_is_whole(void **state)
{
    (void)state;
    uint8_t b[3];
    char text[7];
    assert_int_equal(linnet_hex_read("00fFa9", b, 3), LINNET_OK);
    linnet_hex_write(b, 3, text);
    assert_string_equal(text, "00ffa9");
    static const char *const bad[] = {"", "00ff", "00ffa", "00ffa9a", "00ffg9", "0 ffa9"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(linnet_hex_read(bad[i], b, 3), LINNET_ERR_FORMAT);
}

static void utf8_is_valid_as_rfc_3629_says(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool valid;
    } cases[] = {
        {"", true},
        {"plain", true},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", true},
        {"\xc0\x80", false},         /* overlong */
        {"\xe0\x80\x80", false},     /* overlong */
        {"\xed\xa0\x80", false},     /* surrogate */
        {"\xf4\x90\x80\x80", false}, /* above U+10FFFF */
        {"\xf5\x80\x80\x80", false},
        {"\xe2\x82", false}, /* cut */
        {"\x80", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (linnet_utf8_is_valid(cases[i].text, strlen(cases[i].text)) != cases[i].valid)
            fail_msg("case %zu", i);
}

static void utf8_is_repaired_and_waits_for_what_has_begun(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want, *want_at_end;
        size_t n_taken;
    } cases[] = {
        {"", "", "", 0},
        {"a\xc3\xa9", "a\xc3\xa9", "a\xc3\xa9", 3},
        {"a\xc3", "a", "a\xef\xbf\xbd", 1},
        {"\xf0\x9f\x98", "", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", 0},
        {"\xed\x9f", "", "\xef\xbf\xbd\xef\xbf\xbd", 0},
        {"\xed\xa0", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd",
         2}, /* a surrogate can be nothing */
        {"\xe0\x80", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd\xef\xbf\xbd", 2},
        {"\x80z", "\xef\xbf\xbdz", "\xef\xbf\xbdz", 2},
        {"\xe2\x82z", "\xef\xbf\xbd\xef\xbf\xbdz", "\xef\xbf\xbd\xef\xbf\xbdz", 3},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer open = {0}, whole = {0};
        size_t n = strlen(cases[i].text), n_taken = linnet_utf8_repair(cases[i].text, n, false, &open);
        bool good = n_taken == cases[i].n_taken && linnet_utf8_repair(cases[i].text, n, true, &whole) == n;
        linnet_buffer_append_u8(&open, 0);
        linnet_buffer_append_u8(&whole, 0);
        if (!good || strcmp((char *)open.bytes, cases[i].want) != 0 ||
            strcmp((char *)whole.bytes, cases[i].want_at_end) != 0)
            fail_msg("case %zu: %zu taken", i, n_taken);
        linnet_buffer_release(&open);
        linnet_buffer_release(&whole);
    }
}

static void a_buffer_grows_and_keeps_its_contents(void **state)
{
    (void)state;
    linnet_buffer buffer = {0};
    for (uint32_t i = 0; i < 1000; i++)
        linnet_buffer_append_le32(&buffer, i);
    linnet_buffer_append_format(&buffer, "%s %d", "and", 5);
    linnet_buffer_append_f64(&buffer, 1.25);
    assert_false(buffer.failed);
    assert_int_equal(buffer.n_bytes, 4013);
    linnet_reader reader = linnet_reader_of(buffer.bytes + 4005, 8);
    assert_true(linnet_reader_f64(&reader) == 1.25 && linnet_reader_is_done(&reader));
    assert_int_equal(linnet_load_le32(buffer.bytes + 3996), 999);
    assert_memory_equal(buffer.bytes + 4000, "and 5", 5);
    linnet_buffer_release(&buffer);
    assert_null(buffer.bytes);
}

static void a_reader_never_passes_the_end(void **state)
{
    (void)state;
    static const uint8_t bytes[7] = {1, 2, 0, 3, 0, 0, 0};
    linnet_reader reader = linnet_reader_of(bytes, sizeof(bytes));
    assert_int_equal(linnet_reader_u8(&reader), 1);
    assert_int_equal(linnet_reader_le16(&reader), 2);
    assert_int_equal(linnet_reader_le32(&reader), 3);
    assert_true(linnet_reader_is_done(&reader));
    assert_int_equal(linnet_reader_u8(&reader), 0);
    assert_true(reader.failed);
    assert_true(linnet_reader_f64(&reader) == 0);
    reader = linnet_reader_of(bytes, sizeof(bytes));
    assert_null(linnet_reader_take(&reader, SIZE_MAX));
    assert_false(linnet_reader_is_done(&reader));
}

static void a_message_is_one_line(void **state)
{
    (void)state;
    linnet_error err = {0};
    assert_int_equal(linnet_fail(&err, LINNET_ERR_FORMAT, "a\nb\x1b[2J%s", "\r"), LINNET_ERR_FORMAT);
    assert_string_equal(err.message, "a b [2J ");
    assert_int_equal(linnet_error_prefix(&err, err.status, "file %d", 3), LINNET_ERR_FORMAT);
    assert_string_equal(err.message, "file 3: a b [2J ");
    assert_int_equal(linnet_fail_errno(&err, 28 /* ENOSPC */, "x"), LINNET_ERR_NO_SPACE);
    assert_string_equal(linnet_status_name(LINNET_ERR_NO_SPACE), "NO_SPACE");
    assert_string_equal(linnet_status_name((linnet_status)1000), "UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stores_are_little_endian_and_loads_invert_them),
        cmocka_unit_test(size_products_that_overflow_are_refused),
        cmocka_unit_test(an_array_grows_and_keeps_its_items),
        cmocka_unit_test(hex_is_read_only_where_it_is_whole),
        cmocka_unit_test(utf8_is_valid_as_rfc_3629_says),
        cmocka_unit_test(utf8_is_repaired_and_waits_for_what_has_begun),
        cmocka_unit_test(a_buffer_grows_and_keeps_its_contents),
        cmocka_unit_test(a_reader_never_passes_the_end),
        cmocka_unit_test(a_message_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
