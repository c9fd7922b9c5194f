/* SPDX-License-Identifier: Apache-2.0 */
/* The structure of an LMDB data file, checked before LMDB maps it: 0.9.24 has no checksums and follows every
 * page number, length and offset that it finds, out of the map too, which is a SIGSEGV, or past the end of a
 * file that was cut, which is a SIGBUS. So: two meta pages that can be of successive commits; then both trees
 * of the newer one, free list first, down to the headers of long values. Every page must lie in the file, be
 * of the kind that leads there, hold its entries within itself, and be used once: what a stale meta page
 * names was given to others since. Only free pages may lie behind the end of the file, where LMDB has not
 * written them yet.
 *
 * The bytes of keys and values are not checked: that is done by who reads them (parsers, seals, signatures).
 * Source: LMDB 0.9.24, mdb.c (MDB_meta, MDB_page, MDB_node). All numbers are of the machine's own order and
 * width, as LMDB's are: a file from another kind of machine is no file of this one. */
#include "linnet/lmdb_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC 0xBEEFC0DEu
#define DATA_VERSION 1u
#define N_METAS 2
#define PAGE_BYTES_MIN 512u
#define PAGE_BYTES_MAX 32768u
#define DEPTH_MAX 32 /* LMDB's CURSOR_STACK */
#define LOOKS_MAX 8  /* at a file that is being written */

#define P_BRANCH 0x01
#define P_LEAF 0x02
#define P_OVERFLOW 0x04
#define P_META 0x08
#define F_BIGDATA 0x01
#define INTEGERKEY 0x08
#define NODE_BYTES 8
#define KEY_BYTES_MAX 511 /* as LMDB is compiled */

#define WORD sizeof(size_t) /* page numbers, transaction numbers, sizes */
#define HEADER_BYTES (WORD + 8)
#define NO_PAGE SIZE_MAX
#define META_BYTES (HEADER_BYTES + 4 + 4 + 2 * WORD + 2 * (8 + 5 * WORD) + 2 * WORD)

typedef struct tree {
    uint16_t flags, depth;
    size_t root;
} tree;

typedef struct meta {
    uint32_t page_bytes;
    tree free_list, values;
    size_t last_page, transaction;
} meta;

typedef struct file_check {
    int fd;
    uint64_t n_bytes, map_bytes;
    meta meta;
    uint8_t *used;    /* owned: a bit for each page up to the last */
    const char *flaw; /* a literal; NULL: none so far */
    uint64_t flaw_page;
    int failure; /* an errno: could not be looked at */
} file_check;

/* ---- numbers as the machine has them ---- */

static uint16_t load16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static uint32_t load32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static size_t load_word(const uint8_t *at)
{
    size_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

/* The two halves at the start of a node: a length, or the lower 32 bits of a page number. */
static uint32_t load_halves(const uint8_t *node)
{
    static const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    uint16_t low = load16(node + (first == 1 ? 0 : 2)), high = load16(node + (first == 1 ? 2 : 0));
    return (uint32_t)low | (uint32_t)high << 16;
}

/* ---- what is found ---- */

static bool is_flawed(file_check *c, const char *flaw, uint64_t page)
{
    if (!c->flaw) {
        c->flaw = flaw;
        c->flaw_page = page;
    }
    return false;
}

static bool read_at(file_check *c, void *bytes, size_t n_bytes, uint64_t offset, uint64_t page)
{
    ssize_t got = pread(c->fd, bytes, n_bytes, (off_t)offset);
    if (got < 0) {
        c->failure = errno;
        return false;
    }
    return (size_t)got == n_bytes || is_flawed(c, "ends inside a page that is in use", page);
}

/* ---- the meta pages ---- */

static tree tree_load(const uint8_t *at)
{
    return (tree){.flags = load16(at + 4), .depth = load16(at + 6), .root = load_word(at + 8 + 4 * WORD)};
}

static bool meta_load(file_check *c, const uint8_t bytes[META_BYTES], uint64_t page, meta *ret_meta)
{
    const uint8_t *at = bytes + HEADER_BYTES, *trees = at + 8 + 2 * WORD;
    const size_t n_tree = 8 + 5 * WORD;
    if ((load16(bytes + WORD + 2) & P_META) == 0 || load32(at) != MAGIC)
        return is_flawed(c, "has no LMDB meta page", page);
    if (load32(at + 4) != DATA_VERSION)
        return is_flawed(c, "has a meta page of another LMDB version", page);
    *ret_meta = (meta){.page_bytes = load32(trees), /* in the free list's place for it */
                       .free_list = tree_load(trees),
                       .values = tree_load(trees + n_tree),
                       .last_page = load_word(trees + 2 * n_tree),
                       .transaction = load_word(trees + 2 * n_tree + WORD)};
    return true;
}

static bool page_bytes_are_possible(uint32_t n)
{
    return n >= PAGE_BYTES_MIN && n <= PAGE_BYTES_MAX && (n & (n - 1)) == 0;
}

/* Commits go to the two in turn, so one is even and one is odd, and they are neighbours; both are 0 in a new
 * file. */
static bool transactions_are_possible(const meta m[N_METAS])
{
    size_t a = m[0].transaction, b = m[1].transaction;
    return (a == 0 && b == 0) || (a % 2 == 0 && b % 2 == 1 && (a + 1 == b || b + 1 == a));
}

static bool metas_are_possible(file_check *c, uint8_t bytes[N_METAS * META_BYTES])
{
    meta m[N_METAS] = {{0}};
    if (!read_at(c, bytes, META_BYTES, 0, 0) || !meta_load(c, bytes, 0, &m[0]))
        return false;
    if (!page_bytes_are_possible(m[0].page_bytes))
        return is_flawed(c, "has an impossible page size", 0);
    if (!read_at(c, bytes + META_BYTES, META_BYTES, m[0].page_bytes, 1) ||
        !meta_load(c, bytes + META_BYTES, 1, &m[1]))
        return false;
    if (m[1].page_bytes != m[0].page_bytes)
        return is_flawed(c, "has two page sizes", 1);
    if (!transactions_are_possible(m))
        return is_flawed(c, "has meta pages of commits that do not follow each other", 0);
    c->meta = m[m[1].transaction > m[0].transaction];
    if (c->meta.last_page < N_METAS - 1 || c->meta.last_page >= c->map_bytes / c->meta.page_bytes)
        return is_flawed(c, "has an impossible number of pages", c->meta.transaction % 2);
    if (c->meta.values.flags != 0 || (c->meta.free_list.flags & INTEGERKEY) == 0)
        return is_flawed(c, "has a meta page of another kind of store", c->meta.transaction % 2);
    return true;
}

/* ---- pages ---- */

/* n pages from this one on are used by nobody else. */
static bool claim(file_check *c, size_t page, size_t n)
{
    if (page < N_METAS || page > c->meta.last_page || n - 1 > c->meta.last_page - page)
        return is_flawed(c, "names a page that it does not have", page);
    for (size_t i = page; i < page + n; i++) {
        if (c->used[i / 8] & 1u << i % 8)
            return is_flawed(c, "uses a page twice", i);
        c->used[i / 8] |= (uint8_t)(1u << i % 8);
    }
    return true;
}

static bool read_page(file_check *c, size_t page, uint8_t *bytes, size_t n_bytes)
{
    return read_at(c, bytes, n_bytes, (uint64_t)page * c->meta.page_bytes, page);
}

/* A value too long for its leaf: pages in a row behind one header. */
static bool long_value_is_there(file_check *c, size_t page, uint32_t n_value)
{
    uint8_t header[HEADER_BYTES];
    size_t n_pages = (HEADER_BYTES - 1 + (size_t)n_value) / c->meta.page_bytes + 1;
    if (!claim(c, page, n_pages) || !read_page(c, page, header, sizeof(header)))
        return false;
    if (load_word(header) != page || load16(header + WORD + 2) != P_OVERFLOW ||
        load32(header + WORD + 4) != n_pages)
        return is_flawed(c, "has no long value where there should be one", page);
    return ((uint64_t)page + n_pages) * c->meta.page_bytes <= c->n_bytes ||
           is_flawed(c, "ends inside a long value", page);
}

static bool free_page_is_possible(file_check *c, size_t page, size_t before)
{
    return (page < before && claim(c, page, 1)) ||
           is_flawed(c, "has a free list out of order", page); /* or what claim has said */
}

/* One entry of the free list: a count, and so many page numbers that fall. */
static bool free_entry_is_possible(file_check *c, const uint8_t *value, uint32_t n_value, size_t page)
{
    if (n_value < WORD || load_word(value) > n_value / WORD - 1)
        return is_flawed(c, "has an impossible free list", page);
    size_t n = load_word(value), before = NO_PAGE;
    for (size_t i = 1; i <= n; i++) {
        size_t free_page = load_word(value + i * WORD);
        if (!free_page_is_possible(c, free_page, before))
            return false;
        before = free_page;
    }
    return true;
}

static bool long_free_entry_is_possible(file_check *c, size_t page, uint32_t n_value)
{
    uint8_t *value = malloc(n_value);
    if (!value)
        c->failure = ENOMEM;
    bool good = value &&
                read_at(c, value, n_value, (uint64_t)page * c->meta.page_bytes + HEADER_BYTES, page) &&
                free_entry_is_possible(c, value, n_value, page);
    free(value);
    return good;
}

/* A node lies between the page's upper bound and its end, with its key and, in a leaf, its value. */
static bool leaf_entry_is_possible(file_check *c, bool is_free_list, size_t page, const uint8_t *node,
                                   size_t n_left)
{
    uint32_t n_value = load_halves(node);
    uint16_t flags = load16(node + 4), n_key = load16(node + 6);
    bool is_long = flags == F_BIGDATA;
    size_t n_here = is_long ? WORD : n_value;
    if ((flags != 0 && !is_long) || n_key == 0 || n_key > KEY_BYTES_MAX ||
        NODE_BYTES + (size_t)n_key > n_left || n_here > n_left - NODE_BYTES - n_key ||
        (is_free_list && n_key != WORD))
        return is_flawed(c, "has an entry that leaves its page", page);
    const uint8_t *value = node + NODE_BYTES + n_key;
    if (!is_long)
        return !is_free_list || free_entry_is_possible(c, value, n_value, page);
    size_t first = load_word(value);
    return long_value_is_there(c, first, n_value) &&
           (!is_free_list || long_free_entry_is_possible(c, first, n_value));
}

static bool tree_is_possible(file_check *c, bool is_free_list, size_t page, unsigned depth);

static bool branch_entry_is_possible(file_check *c, bool is_free_list, size_t page, unsigned depth,
                                     const uint8_t *node, size_t n_left)
{
    uint16_t n_key = load16(node + 6); /* 0 in the first of a page */
    if (n_key > KEY_BYTES_MAX || NODE_BYTES + (size_t)n_key > n_left)
        return is_flawed(c, "has an entry that leaves its page", page);
    uint64_t child = load_halves(node);
    if (sizeof(size_t) > 4)
        child |= (uint64_t)load16(node + 4) << 32;
    return tree_is_possible(c, is_free_list, (size_t)child, depth - 1);
}

static bool entries_are_possible(file_check *c, bool is_free_list, size_t page, unsigned depth,
                                 const uint8_t *bytes)
{
    size_t n_page = c->meta.page_bytes, lower = load16(bytes + WORD + 4), upper = load16(bytes + WORD + 6);
    if (load_word(bytes) != page || load16(bytes + WORD + 2) != (depth > 1 ? P_BRANCH : P_LEAF))
        return is_flawed(c, "has a page of another kind than its place says", page);
    size_t n = lower < HEADER_BYTES ? 0 : (lower - HEADER_BYTES) / 2;
    if (lower > upper || upper > n_page || lower % 2 != 0 || n < (depth > 1 && !is_free_list ? 2u : 1u))
        return is_flawed(c, "has a page with impossible bounds", page);
    for (size_t i = 0; i < n; i++) {
        size_t at = load16(bytes + HEADER_BYTES + 2 * i);
        if (at < upper || at % 2 != 0 || at > n_page - NODE_BYTES)
            return is_flawed(c, "has an entry that leaves its page", page);
        bool good = depth > 1
                        ? branch_entry_is_possible(c, is_free_list, page, depth, bytes + at, n_page - at)
                        : leaf_entry_is_possible(c, is_free_list, page, bytes + at, n_page - at);
        if (!good)
            return false;
    }
    return true;
}

static bool tree_is_possible(file_check *c, bool is_free_list, size_t page, unsigned depth)
{
    if (!claim(c, page, 1))
        return false;
    uint8_t *bytes = malloc(c->meta.page_bytes);
    if (!bytes)
        c->failure = ENOMEM;
    bool good = bytes && read_page(c, page, bytes, c->meta.page_bytes) &&
                entries_are_possible(c, is_free_list, page, depth, bytes);
    free(bytes);
    return good;
}

static bool root_is_possible(file_check *c, bool is_free_list, const tree *t)
{
    if (t->root == NO_PAGE)
        return t->depth == 0 || is_flawed(c, "has a tree without a root", c->meta.transaction % 2);
    if (t->depth == 0 || t->depth > DEPTH_MAX)
        return is_flawed(c, "has a tree of impossible depth", c->meta.transaction % 2);
    return tree_is_possible(c, is_free_list, t->root, t->depth);
}

static bool pages_are_possible(file_check *c)
{
    size_t n = c->meta.last_page / 8 + 1;
    c->used = calloc(n, 1);
    if (!c->used) {
        c->failure = ENOMEM;
        return false;
    }
    if (!root_is_possible(c, true, &c->meta.free_list) || !root_is_possible(c, false, &c->meta.values))
        return false;
    for (uint64_t page = c->n_bytes / c->meta.page_bytes; page <= c->meta.last_page; page++)
        if ((c->used[page / 8] & 1u << page % 8) == 0)
            return is_flawed(c, "is cut short", page);
    return true;
}

/* ---- the file ---- */

/* One look. True: it can be what LMDB takes it for, or failure says why that is not known. */
static bool look(file_check *c, uint8_t metas[N_METAS * META_BYTES])
{
    struct stat info;
    c->flaw = NULL;
    if (fstat(c->fd, &info) != 0) {
        c->failure = errno;
        return false;
    }
    c->n_bytes = (uint64_t)info.st_size;
    bool good = c->n_bytes == 0 || (metas_are_possible(c, metas) && pages_are_possible(c));
    free(c->used);
    c->used = NULL;
    return good;
}

/* Until two looks in a row see the same flaw and the same meta pages. */
static void look_again(file_check *c)
{
    uint8_t seen[2][N_METAS * META_BYTES] = {{0}};
    const char *flaw = NULL;
    for (int i = 0; i < LOOKS_MAX; i++) {
        uint8_t *now = seen[i % 2];
        memset(now, 0, sizeof(seen[0]));
        if (look(c, now) || c->failure != 0)
            return;
        if (i > 0 && flaw == c->flaw && memcmp(seen[0], seen[1], sizeof(seen[0])) == 0)
            return;
        flaw = c->flaw;
    }
    c->flaw = NULL; /* it never stood still: in use */
}

linnet_status linnet_lmdb_check(const char *path, uint64_t map_bytes, const char *next_step,
                                linnet_error *err)
{
    file_check c = {.map_bytes = map_bytes};
    c.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (c.fd < 0)
        return errno == ENOENT ? LINNET_OK : linnet_fail_errno(err, errno, "cannot open '%s'", path);
    look_again(&c);
    (void)close(c.fd); /* LMDB's locks are on another file, so no close of this one drops them */
    if (c.failure != 0)
        return linnet_fail_errno(err, c.failure, "cannot look at '%s'", path);
    if (c.flaw)
        return linnet_fail(err, LINNET_ERR_FORMAT, "'%s' is damaged: it %s (page %llu); %s", path, c.flaw,
                           (unsigned long long)c.flaw_page, next_step);
    return LINNET_OK;
}

void linnet_lmdb_clear_unborn(const char *path)
{
    uint8_t bytes[META_BYTES];
    struct stat info;
    meta m = {.page_bytes = PAGE_BYTES_MAX};
    file_check c = {.fd = open(path, O_RDONLY | O_CLOEXEC)};
    if (c.fd < 0)
        return;
    ssize_t got = pread(c.fd, bytes, sizeof(bytes), 0);
    bool is_whole = got == (ssize_t)sizeof(bytes) && meta_load(&c, bytes, 0, &m);
    bool is_short =
        fstat(c.fd, &info) == 0 && info.st_size > 0 && (uint64_t)info.st_size < 2 * (uint64_t)m.page_bytes;
    (void)close(c.fd);
    if (got >= 0 && is_short && (is_whole ? m.transaction == 0 : (size_t)got < sizeof(bytes)))
        (void)unlink(path); /* what cannot be removed is refused when it is looked at */
}
