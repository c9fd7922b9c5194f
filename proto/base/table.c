/* SPDX-License-Identifier: Apache-2.0 */
/* Tables for people: cells are collected as text, then printed with every column as wide as its widest cell.
 */
#include "linnet/cli.h"

#include "linnet/bytes.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct linnet_table {
    size_t n_columns, n_cells;
    bool failed;
    linnet_buffer text;    /* all cells, zero terminated, one behind the other */
    linnet_buffer offsets; /* size_t each, of the cells in text; the headers are the first row */
};

static void add_cell(linnet_table *table, const char *text)
{
    size_t offset = table->text.n_bytes;
    linnet_buffer_append(&table->text, text, strlen(text) + 1);
    linnet_buffer_append(&table->offsets, &offset, sizeof(offset));
    table->n_cells++;
    table->failed |= table->text.failed || table->offsets.failed;
}

linnet_table *linnet_table_create(const char *const *headers, size_t n_columns)
{
    linnet_table *table = calloc(1, sizeof(*table));
    if (!table || n_columns == 0) {
        free(table);
        return NULL;
    }
    table->n_columns = n_columns;
    for (size_t i = 0; i < n_columns; i++)
        add_cell(table, headers[i]);
    return table;
}

void linnet_table_cell(linnet_table *table, const char *format, ...)
{
    char text[512];
    if (!table)
        return;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    add_cell(table, text);
}

static const char *cell(const linnet_table *table, size_t i)
{
    size_t offset;
    memcpy(&offset, table->offsets.bytes + i * sizeof(offset), sizeof(offset));
    return (const char *)table->text.bytes + offset;
}

/* Characters on a terminal: UTF-8 continuation bytes take no room. */
static size_t width_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static bool is_number(const char *text)
{
    return isdigit((unsigned char)text[0]) || (strchr("+-.", text[0]) && isdigit((unsigned char)text[1])) ||
           strcmp(text, "-") == 0;
}

void linnet_table_print(const linnet_table *table, FILE *out)
{
    if (!table || table->failed)
        return;
    size_t n_rows = table->n_cells / table->n_columns;
    for (size_t row = 0; row < n_rows; row++) {
        for (size_t column = 0; column < table->n_columns; column++) {
            size_t widest = 0;
            bool right = n_rows > 1;
            for (size_t other = 0; other < n_rows; other++) {
                const char *text = cell(table, other * table->n_columns + column);
                widest = width_of(text) > widest ? width_of(text) : widest;
                right &= other == 0 || is_number(text);
            }
            const char *text = cell(table, row * table->n_columns + column);
            int pad = (int)(widest - width_of(text));
            bool is_last = column + 1 == table->n_columns;
            fprintf(out, "%*s%s%*s%s", right ? pad : 0, "", text, right || is_last ? 0 : pad, "",
                    is_last ? "\n" : "  ");
        }
    }
}

void linnet_table_destroy(linnet_table *table)
{
    if (!table)
        return;
    linnet_buffer_release(&table->text);
    linnet_buffer_release(&table->offsets);
    free(table);
}

const char *linnet_human_bytes(uint64_t n_bytes, char text[16])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)n_bytes;
    size_t unit = 0;
    for (; value >= 999.5 && unit + 1 < ARRAY_LEN(units); unit++)
        value /= 1000;
    (void)snprintf(text, 16,
                   unit == 0      ? "%.0f %s"
                   : value < 9.95 ? "%.2f %s"
                                  : "%.1f %s",
                   value, units[unit]);
    return text;
}
