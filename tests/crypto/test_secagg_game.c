/* SPDX-License-Identifier: Apache-2.0 */

/* The coordinator's game (SECURE-AGGREGATION 2.6 and 6.2, property 7). A coordinator and C corrupt members
 * show each honest device a set of sharers, and sets of survivors, of their own choice; what shares come out
 * by the rules of 2.4 opens self masks and pair keys. The uploads are linear in inputs and masks, so what is
 * learned are the left null vectors of the matrix of masks that stayed unknown, found over a prime. Without
 * the certificate, or with a smaller t, the same search does find breaks: the test can fail. */

#include "linnet/secagg.h"
#include "testing.h"

#define MEMBERS_MAX 9
#define VIEWS 3
#define PRIME UINT64_C(2147483647)
#define UNKNOWNS_MAX (MEMBERS_MAX + VIEWS * MEMBERS_MAX * MEMBERS_MAX)
#define NOBODY UINT32_MAX

typedef struct rules {
    linnet_secagg_thresholds thresholds;
    uint32_t n;
    bool with_certificate;
} rules;

/* Members 0 .. C - 1 are corrupt. */
typedef struct game {
    rules r;
    uint64_t random;
    uint32_t u2[VIEWS], u3[VIEWS];                     /* bit sets; u3[k] is of the view of_view[k] */
    uint32_t of_view[VIEWS];                           /* whose T2 a T3 is under */
    uint32_t view[MEMBERS_MAX];                        /* which U2 a device was shown */
    uint32_t attested[MEMBERS_MAX];                    /* which T3, or NOBODY */
    uint32_t n_self[MEMBERS_MAX], n_pair[MEMBERS_MAX]; /* shares of r_b and r_s that are out */
} game;

/* SplitMix64 (Steele, Lea and Flood 2014). */
static uint64_t draw(game *g)
{
    uint64_t z = g->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint32_t below(game *g, uint32_t n)
{
    return (uint32_t)(draw(g) % n);
}

static uint32_t count(uint32_t set)
{
    uint32_t n = 0;
    for (; set; set &= set - 1)
        n++;
    return n;
}

static bool has(uint32_t set, uint32_t i)
{
    return set >> i & 1;
}

static uint32_t corrupt_set(const game *g)
{
    return (1u << g->r.thresholds.corrupt) - 1;
}

/* A subset of `of` with all corrupt members in it, of the least size half of the time; 0: there is none. */
static uint32_t draw_set(game *g, uint32_t of, uint32_t size_min)
{
    uint32_t set = corrupt_set(g) & of, n = count(of);
    if (n < size_min)
        return 0;
    uint32_t size = below(g, 2) ? size_min : size_min + below(g, n - size_min + 1);
    while (count(set) < size) {
        uint32_t i = below(g, g->r.n);
        set |= has(of, i) ? 1u << i : 0;
    }
    return set;
}

/* ---- what the coordinator shows ---- */

static void show_views(game *g)
{
    uint32_t all = (1u << g->r.n) - 1;
    for (uint32_t v = 0; v < VIEWS; v++)
        g->u2[v] = draw_set(g, all, g->r.thresholds.sharers_min);
    for (uint32_t k = 0; k < VIEWS; k++) {
        g->of_view[k] = below(g, VIEWS);
        g->u3[k] = draw_set(g, g->u2[g->of_view[k]], g->r.thresholds.survivors_min);
    }
    for (uint32_t i = 0; i < g->r.n; i++) {
        uint32_t choice = below(g, VIEWS);
        g->view[i] = NOBODY;
        for (uint32_t k = 0; k < VIEWS && g->view[i] == NOBODY; k++)
            if (has(g->u2[(choice + k) % VIEWS], i))
                g->view[i] = (choice + k) % VIEWS;
    }
}

/* Two views of the same bits are one T2. */
static bool is_view(const game *g, uint32_t i, uint32_t view)
{
    return g->view[i] != NOBODY && g->u2[g->view[i]] == g->u2[view];
}

/* Would device i sign this T3? (M6: its own T2, itself in it; sizes hold by construction.) */
static bool accepts(const game *g, uint32_t i, uint32_t k)
{
    return g->u3[k] != 0 && is_view(g, i, g->of_view[k]) && has(g->u3[k], i);
}

static void attest(game *g)
{
    for (uint32_t i = g->r.thresholds.corrupt; i < g->r.n; i++) {
        uint32_t choice = below(g, VIEWS);
        g->attested[i] = NOBODY;
        if (below(g, 8) == 0) /* shown nothing: it may adopt */
            continue;
        for (uint32_t k = 0; k < VIEWS && g->attested[i] == NOBODY; k++)
            if (accepts(g, i, (choice + k) % VIEWS))
                g->attested[i] = (choice + k) % VIEWS;
    }
}

static bool is_same_t3(const game *g, uint32_t k, uint32_t m)
{
    return g->u3[k] == g->u3[m] && g->u2[g->of_view[k]] == g->u2[g->of_view[m]];
}

static bool is_certified(const game *g, uint32_t k)
{
    uint32_t n = count(corrupt_set(g) & g->u3[k]);
    for (uint32_t i = g->r.thresholds.corrupt; i < g->r.n; i++)
        n += g->attested[i] != NOBODY && is_same_t3(g, g->attested[i], k);
    return g->u3[k] != 0 && n >= g->r.thresholds.signatures;
}

/* ---- what comes out ---- */

/* One kind of share for every other sharer, by the one bitmap. */
static void release(game *g, uint32_t i, uint32_t k)
{
    for (uint32_t j = 0; j < g->r.n; j++) {
        if (j == i || !has(g->u2[g->of_view[k]], j))
            continue;
        if (has(g->u3[k], j))
            g->n_self[j]++;
        else
            g->n_pair[j]++;
    }
}

static void release_all(game *g)
{
    for (uint32_t j = 0; j < g->r.n; j++)
        g->n_self[j] = g->n_pair[j] = g->r.thresholds.corrupt; /* corrupt holders give both */
    for (uint32_t i = g->r.thresholds.corrupt; i < g->r.n; i++)
        for (uint32_t k = 0; k < VIEWS; k++) {
            bool is_own = g->attested[i] != NOBODY && is_same_t3(g, g->attested[i], k);
            bool adopts = g->attested[i] == NOBODY && accepts(g, i, k);
            if (g->r.with_certificate ? is_certified(g, k) && (is_own || adopts) : is_own) {
                release(g, i, k);
                break; /* once, forever */
            }
        }
}

/* ---- what is learned ---- */

static uint64_t inverse(uint64_t a)
{
    uint64_t result = 1;
    for (uint64_t e = PRIME - 2; e; e >>= 1, a = a * a % PRIME)
        if (e & 1)
            result = result * a % PRIME;
    return result;
}

/* Rows: uploads. Columns: masks that are not known, then the identity, which records the combination. */
typedef struct matrix {
    uint64_t at[MEMBERS_MAX][UNKNOWNS_MAX + MEMBERS_MAX];
    uint32_t n_rows, n_unknowns, owner[MEMBERS_MAX];
} matrix;

static bool pair_is_known(const game *g, uint32_t i, uint32_t j)
{
    uint32_t c = g->r.thresholds.corrupt, t = g->r.thresholds.shares;
    return i < c || j < c || g->n_pair[i] >= t || g->n_pair[j] >= t;
}

/* The column of the pair mask of i and j under a T2: the first view of these bits stands for it. */
static uint32_t pair_column(const game *g, uint32_t i, uint32_t j, uint32_t view)
{
    uint32_t v = 0, low = i < j ? i : j, high = i < j ? j : i;
    while (g->u2[v] != g->u2[view])
        v++;
    return MEMBERS_MAX + (v * MEMBERS_MAX + low) * MEMBERS_MAX + high;
}

static void fill(const game *g, matrix *m)
{
    memset(m, 0, sizeof(*m));
    m->n_unknowns = UNKNOWNS_MAX;
    for (uint32_t i = g->r.thresholds.corrupt; i < g->r.n; i++) {
        if (g->view[i] == NOBODY)
            continue;
        uint64_t *row = m->at[m->n_rows];
        row[UNKNOWNS_MAX + m->n_rows] = 1;
        m->owner[m->n_rows++] = i;
        if (g->n_self[i] < g->r.thresholds.shares)
            row[i] = 1;
        for (uint32_t j = 0; j < g->r.n; j++)
            if (j != i && has(g->u2[g->view[i]], j) && !pair_is_known(g, i, j))
                row[pair_column(g, i, j, g->view[i])] = i < j ? 1 : PRIME - 1;
    }
}

/* Gauss: rows from the returned number on have no unknown mask left in them. */
static uint32_t eliminate(matrix *m)
{
    uint32_t rank = 0, width = UNKNOWNS_MAX + MEMBERS_MAX;
    for (uint32_t column = 0; column < UNKNOWNS_MAX && rank < m->n_rows; column++) {
        uint32_t pivot = rank;
        while (pivot < m->n_rows && m->at[pivot][column] == 0)
            pivot++;
        if (pivot == m->n_rows)
            continue;
        for (uint32_t c = 0; c < width; c++) {
            uint64_t held = m->at[pivot][c];
            m->at[pivot][c] = m->at[rank][c];
            m->at[rank][c] = held;
        }
        uint64_t scale = inverse(m->at[rank][column]);
        for (uint32_t r = rank + 1; r < m->n_rows; r++) {
            uint64_t factor = m->at[r][column] * scale % PRIME;
            for (uint32_t c = column; factor && c < width; c++)
                m->at[r][c] = (m->at[r][c] + (PRIME - factor) * m->at[rank][c]) % PRIME;
        }
        rank++;
    }
    return rank;
}

/* Is this combination the plain sum over all honest members of one set of survivors? */
static bool is_allowed(const game *g, const matrix *m, uint32_t row)
{
    uint32_t support = 0;
    uint64_t value = 0;
    for (uint32_t r = 0; r < m->n_rows; r++) {
        uint64_t c = m->at[row][UNKNOWNS_MAX + r];
        if (c == 0)
            continue;
        if (value != 0 && c != value)
            return false;
        value = c;
        support |= 1u << m->owner[r];
    }
    for (uint32_t k = 0; k < VIEWS; k++)
        if (g->u3[k] != 0 && support == (g->u3[k] & ~corrupt_set(g)) &&
            (!g->r.with_certificate || is_certified(g, k)))
            return count(g->u3[k]) >= g->r.thresholds.survivors_min;
    return false;
}

typedef struct tally {
    uint32_t games, opened, breaks, certificates;
} tally;

static void play(game *g, tally *t)
{
    static matrix m;
    show_views(g);
    attest(g);
    release_all(g);
    fill(g, &m);
    uint32_t rank = eliminate(&m), n_certified = 0;
    for (uint32_t k = 0; k < VIEWS; k++) {
        bool is_first = true;
        for (uint32_t e = 0; e < k; e++)
            is_first = is_first && !is_same_t3(g, e, k);
        n_certified += is_first && is_certified(g, k);
    }
    t->games++;
    t->certificates += n_certified > 1;
    if (rank == m.n_rows)
        return;
    if (m.n_rows - rank == 1 && is_allowed(g, &m, rank))
        t->opened++;
    else
        t->breaks++;
}

static rules rules_of(uint32_t n, uint32_t corrupt_permille)
{
    linnet_secagg_params params = {.n_min = 3, .n_max = n, .m_min = 2, .corrupt_permille = corrupt_permille};
    return (rules){.thresholds = linnet_secagg_thresholds_of(&params, n), .n = n, .with_certificate = true};
}

static tally play_many(const char *name, rules r, uint32_t games, uint64_t seed)
{
    tally t = {0};
    game g = {.r = r, .random = seed};
    while (t.games < games)
        play(&g, &t);
    print_message("%s: n %u, C %u, t %u, q %u, seed %llu: %u games, %u opened one sum, %u breaks\n", name,
                  (unsigned)r.n, (unsigned)r.thresholds.corrupt, (unsigned)r.thresholds.shares,
                  (unsigned)r.thresholds.signatures, (unsigned long long)seed, (unsigned)t.games,
                  (unsigned)t.opened, (unsigned)t.breaks);
    return t;
}

static void no_coordinator_learns_more_than_one_whole_sum(void **state)
{
    (void)state;
    static const uint32_t permilles[] = {50, 222};
    for (uint32_t n = 5; n <= MEMBERS_MAX; n++)
        for (size_t p = 0; p < ARRAY_LEN(permilles); p++) {
            rules r = rules_of(n, permilles[p]);
            tally t = play_many("all rules", r, 100000, n * 10 + p);
            assert_int_equal(t.breaks, 0);
            assert_int_equal(t.certificates, 0); /* never two certified sets */
            assert_true(t.opened > 0);           /* and the coordinator that plays fair gets its sum */
        }
}

static void without_the_certificate_there_are_breaks(void **state)
{
    (void)state;
    rules r = rules_of(7, 50);
    assert_int_equal(r.thresholds.corrupt, 1);
    assert_int_equal(r.thresholds.shares, 4);
    r.with_certificate = false;
    assert_true(play_many("no certificate", r, 20000, 1).breaks > 0);
}

static void with_fewer_shares_there_are_breaks(void **state)
{
    (void)state;
    rules r = rules_of(9, 222);
    assert_int_equal(r.thresholds.corrupt, 2);
    r.thresholds.shares = 3; /* C + 1, and the sizes that follow from it */
    r.thresholds.survivors_min = r.thresholds.sharers_min = 4;
    assert_true(play_many("t = C + 1", r, 20000, 2).breaks > 0);
}

/* More than C corrupt members: nothing is promised at C' = 2 q - n or 2 t - k, and there it does end. */
static void with_more_corrupt_members_there_are_breaks(void **state)
{
    (void)state;
    rules r = rules_of(9, 50);
    r.thresholds.corrupt = 2 * r.thresholds.signatures - r.n;
    assert_true(r.thresholds.corrupt > 1);
    tally t = play_many("C' = 2q - n", r, 20000, 3);
    assert_true(t.certificates > 0 && t.breaks > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_coordinator_learns_more_than_one_whole_sum),
        cmocka_unit_test(without_the_certificate_there_are_breaks),
        cmocka_unit_test(with_fewer_shares_there_are_breaks),
        cmocka_unit_test(with_more_corrupt_members_there_are_breaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
