/* SPDX-License-Identifier: Apache-2.0 */
/* docs/plan.md and docs/man/linnet-plan.5.scd hold the code's own table of keys, between two marks each.
 * Where LINNET_UPDATE_DOCS is set the test writes them instead of comparing. */
#include "testing.h"

#include "linnet/file.h"
#include "proto/plan_keys.h"

static char *value_text(const linnet_plan_key_info *key, int preset)
{
    linnet_plan plan;
    linnet_buffer text = {0};
    linnet_plan_default(&plan);
    linnet_plan_preset_apply(preset, &plan);
    linnet_plan_value_write(key, &plan, &text);
    linnet_buffer_append_u8(&text, 0);
    assert_false(text.failed);
    return (char *)text.bytes; /* owned by the caller */
}

/* Text with a backslash before every character of `special`. */
static void append_escaped(linnet_buffer *out, const char *text, const char *special)
{
    for (; *text; text++) {
        if (strchr(special, *text))
            linnet_buffer_append_u8(out, '\\');
        linnet_buffer_append_u8(out, (uint8_t)*text);
    }
}

static void append_markdown_key(linnet_buffer *out, const linnet_plan_key_info *key,
                                char *const values[LINNET_PLAN_PRESETS], const char *allowed)
{
    linnet_buffer_append_format(out, "| `%s` | %s |", key->key, values[0]);
    for (int preset = 1; preset < LINNET_PLAN_PRESETS; preset++)
        linnet_buffer_append_format(out, " %s |",
                                    strcmp(values[preset], values[0]) == 0 ? "" : values[preset]);
    linnet_buffer_append_text(out, " ");
    append_escaped(out, allowed, "|");
    linnet_buffer_append_format(out, " | %s | %s |\n", key->unit, key->meaning);
}

static void append_man_key(linnet_buffer *out, const linnet_plan_key_info *key,
                           char *const values[LINNET_PLAN_PRESETS], const char *allowed)
{
    static const char *const presets[] = {"", "wearables", "clinics", "wearables-dp", "clinics-dp"};
    linnet_buffer_append_text(out, "*");
    append_escaped(out, key->key, "_");
    linnet_buffer_append_format(out, "* = %s\n\t", values[0]);
    append_escaped(out, key->meaning, "_*");
    linnet_buffer_append_text(out, ".\n\t");
    append_escaped(out, allowed, "_*");
    linnet_buffer_append_format(out, "%s%s", *key->unit ? " " : "", key->unit);
    for (int preset = 1; preset < LINNET_PLAN_PRESETS; preset++)
        if (strcmp(key->key, "preset") != 0 && strcmp(values[preset], values[0]) != 0)
            linnet_buffer_append_format(out, "; %s: %s", presets[preset], values[preset]);
    linnet_buffer_append_text(out, ".\n\n");
}

static void append_keys(linnet_buffer *out, bool is_man)
{
    const char *section = "";
    const linnet_plan_key_info *key;
    for (size_t i = 0; (key = linnet_plan_key_at(i)); i++) {
        char allowed[96];
        char *values[LINNET_PLAN_PRESETS];
        linnet_plan_value_allowed(key, allowed, sizeof(allowed));
        for (int preset = 0; preset < LINNET_PLAN_PRESETS; preset++)
            values[preset] = value_text(key, strcmp(key->key, "preset") == 0 ? 0 : preset);
        if (strcmp(section, key->section) != 0) {
            linnet_buffer_append_format(out, is_man ? "## [%s]\n\n" : "\n### [%s]\n\n", key->section);
            if (!is_man)
                linnet_buffer_append_text(
                    out,
                    "| key | default | wearables | clinics | wearables-dp | clinics-dp | allowed | unit | "
                    "meaning |\n|---|---|---|---|---|---|---|---|---|\n");
            section = key->section;
        }
        (is_man ? append_man_key : append_markdown_key)(out, key, values, allowed);
        for (int preset = 0; preset < LINNET_PLAN_PRESETS; preset++)
            free(values[preset]);
    }
    linnet_buffer_append_u8(out, 0);
    assert_false(out->failed);
}

/* The document with everything between the marks replaced by the table. */
static void document_agrees(const char *name, const char *begin_mark, const char *end_mark, bool is_man)
{
    char path[4096];
    linnet_buffer old = {0}, table = {0}, fresh = {0};
    linnet_error err = {0};
    (void)snprintf(path, sizeof(path), "%s/docs/%s", LINNET_SOURCE, name);
    assert_ok(linnet_file_read(path, 1 << 20, &old, &err), &err);
    linnet_buffer_append_u8(&old, 0);
    append_keys(&table, is_man);
    char *text = (char *)old.bytes, *begin = strstr(text, begin_mark), *end = strstr(text, end_mark);
    if (!begin || !end || end < begin)
        fail_msg("%s: no marks '%s' and '%s'", path, begin_mark, end_mark);
    begin += strlen(begin_mark);
    linnet_buffer_append(&fresh, text, (size_t)(begin - text));
    linnet_buffer_append_text(&fresh, (const char *)table.bytes);
    linnet_buffer_append_text(&fresh, end);
    linnet_buffer_append_u8(&fresh, 0);
    assert_false(fresh.failed);
    if (getenv("LINNET_UPDATE_DOCS"))
        assert_ok(linnet_file_write(path, fresh.bytes, fresh.n_bytes - 1, 0644, &err), &err);
    else if (strcmp((const char *)fresh.bytes, text) != 0)
        fail_msg(
            "%s differs from the table of keys: LINNET_UPDATE_DOCS=1 build/release/tests/test_plan_documents",
            path);
    linnet_buffer_release(&old);
    linnet_buffer_release(&table);
    linnet_buffer_release(&fresh);
}

static void the_plan_page_holds_the_table_of_keys(void **state)
{
    (void)state;
    document_agrees("plan.md", "<!-- keys: written by test_plan_documents -->\n", "\n<!-- end of keys -->\n",
                    false);
}

static void the_manual_page_holds_the_table_of_keys(void **state)
{
    (void)state;
    document_agrees("man/linnet-plan.5.scd", "; keys: written by test_plan_documents\n\n", "; end of keys\n",
                    true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plan_page_holds_the_table_of_keys),
        cmocka_unit_test(the_manual_page_holds_the_table_of_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
