/* SPDX-License-Identifier: Apache-2.0 */
/* Dealing records to virtual devices: by their own client, at random, or by label with Dirichlet proportions
 * (Hsu et al. 2019). All three are one idea: a list of labels per set, and for every label the devices that
 * share its records. */
#include "linnet/simulation.h"

#include <stdlib.h>
#include <string.h>

/* The distinct clients of a set, in order of first appearance, and each record's client. */
typedef struct label_set {
    const char **names; /* borrowed from the records */
    size_t n_names;
    size_t *n_train, *n_eval;
} label_set;

static const char *client_of(const linnet_record *record)
{
    return record->client ? record->client : "unnamed";
}

static size_t find_label(const label_set *labels, const char *name)
{
    for (size_t i = 0; i < labels->n_names; i++)
        if (strcmp(labels->names[i], name) == 0)
            return i;
    return SIZE_MAX;
}

static void release_labels(label_set *labels)
{
    free(labels->names);
    free(labels->n_train);
    free(labels->n_eval);
    *labels = (label_set){0};
}

/* Names and counts; NULL-safe for a missing evaluation set. Evaluation records of unknown clients are left
 * out. */
static bool collect_labels(const linnet_dataset *data, const linnet_dataset *eval, label_set *labels)
{
    labels->names = calloc(data->n_records + 1, sizeof(*labels->names));
    labels->n_train = calloc(data->n_records + 1, sizeof(*labels->n_train));
    labels->n_eval = calloc(data->n_records + 1, sizeof(*labels->n_eval));
    if (!labels->names || !labels->n_train || !labels->n_eval)
        return false;
    for (size_t i = 0; i < data->n_records; i++) {
        size_t label = find_label(labels, client_of(&data->records[i]));
        if (label == SIZE_MAX) {
            label = labels->n_names++;
            labels->names[label] = client_of(&data->records[i]);
        }
        labels->n_train[label]++;
    }
    for (size_t i = 0; eval && i < eval->n_records; i++) {
        size_t label = find_label(labels, client_of(&eval->records[i]));
        if (label != SIZE_MAX)
            labels->n_eval[label]++;
    }
    return true;
}

/* Is client a before client b: with evaluation records, then with more records, then by name? */
static bool comes_first(const label_set *labels, size_t a, size_t b)
{
    if ((labels->n_eval[a] > 0) != (labels->n_eval[b] > 0))
        return labels->n_eval[a] > 0;
    if (labels->n_train[a] != labels->n_train[b])
        return labels->n_train[a] > labels->n_train[b];
    return strcmp(labels->names[a], labels->names[b]) < 0;
}

/* device_of[label] = rank of the client among the chosen ones, or SIZE_MAX. */
static void choose_clients(const label_set *labels, size_t n_devices, size_t *device_of)
{
    for (size_t i = 0; i < labels->n_names; i++) {
        size_t rank = 0;
        for (size_t j = 0; j < labels->n_names; j++)
            rank += j != i && comes_first(labels, j, i);
        device_of[i] = rank < n_devices ? rank : SIZE_MAX;
    }
}

static bool append_index(size_t **list, size_t *n, size_t index)
{
    if ((*n & (*n - 1)) == 0) { /* grow at powers of two */
        size_t *grown = realloc(*list, (*n ? *n * 2 : 1) * sizeof(*grown));
        if (!grown)
            return false;
        *list = grown;
    }
    (*list)[(*n)++] = index;
    return true;
}

static bool give(linnet_share *share, bool is_eval, size_t index)
{
    return is_eval ? append_index(&share->eval_records, &share->n_eval_records, index)
                   : append_index(&share->records, &share->n_records, index);
}

static bool deal_by_client(const linnet_dataset *set, bool is_eval, const label_set *labels,
                           const size_t *device_of, linnet_shares *shares)
{
    for (size_t i = 0; i < set->n_records; i++) {
        size_t label = find_label(labels, client_of(&set->records[i]));
        if (label != SIZE_MAX && device_of[label] != SIZE_MAX &&
            !give(&shares->items[device_of[label]], is_eval, i))
            return false;
    }
    return true;
}

/* proportions[label][device] as cumulative sums; IID is one label with equal shares. */
static void draw_proportions(linnet_split split, double alpha, size_t n_labels, size_t n_devices,
                             linnet_rng *rng, double *cumulative)
{
    for (size_t label = 0; label < n_labels; label++) {
        double total = 0, *row = cumulative + label * n_devices;
        for (size_t d = 0; d < n_devices; d++) {
            total += split == LINNET_SPLIT_IID ? 1 : linnet_rng_gamma(rng, alpha);
            row[d] = total;
        }
        for (size_t d = 0; d < n_devices; d++)
            row[d] = total > 0 ? row[d] / total : (double)(d + 1) / (double)n_devices;
    }
}

/* Deal the n_order shuffled records of a label by its row: device d gets those in (row[d-1], row[d]] of the
 * order. */
static bool deal_label(const size_t *order, size_t n_order, bool is_eval, const double *row, size_t n_devices,
                       linnet_shares *shares)
{
    for (size_t i = 0; i < n_order; i++) {
        double at = ((double)i + 0.5) / (double)n_order;
        size_t device = 0;
        while (device + 1 < n_devices && row[device] < at)
            device++;
        if (!give(&shares->items[device], is_eval, order[i]))
            return false;
    }
    return true;
}

static bool deal_by_label(const linnet_dataset *set, bool is_eval, linnet_split split,
                          const label_set *labels, const double *cumulative, linnet_rng *rng,
                          linnet_shares *shares)
{
    size_t n_labels = split == LINNET_SPLIT_IID ? 1 : labels->n_names;
    size_t *order = calloc(set->n_records + 1, sizeof(*order));
    bool ok = order != NULL;
    for (size_t label = 0; ok && label < n_labels; label++) {
        size_t n_order = 0;
        for (size_t i = 0; i < set->n_records; i++)
            if (split == LINNET_SPLIT_IID || find_label(labels, client_of(&set->records[i])) == label)
                order[n_order++] = i;
        linnet_rng_shuffle(rng, order, n_order);
        ok = deal_label(order, n_order, is_eval, cumulative + label * shares->n_items, shares->n_items,
                        shares);
    }
    free(order);
    return ok;
}

static int compare_indices(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* File order, and every ceil(n / max)-th evaluation record. */
static void order_and_thin(linnet_share *share, size_t eval_records_max)
{
    if (share->n_records)
        qsort(share->records, share->n_records, sizeof(*share->records), compare_indices);
    if (!share->n_eval_records)
        return;
    qsort(share->eval_records, share->n_eval_records, sizeof(*share->eval_records), compare_indices);
    size_t n = share->n_eval_records,
           stride =
               eval_records_max && n > eval_records_max ? (n + eval_records_max - 1) / eval_records_max : 1,
           kept = 0;
    for (size_t i = 0; i < n; i += stride)
        share->eval_records[kept++] = share->eval_records[i];
    share->n_eval_records = kept;
}

static bool name_shares(linnet_split split, const label_set *labels, const size_t *device_of,
                        linnet_shares *shares)
{
    char name[32];
    for (size_t i = 0; split == LINNET_SPLIT_CLIENT && i < labels->n_names; i++)
        if (device_of[i] != SIZE_MAX)
            shares->items[device_of[i]].name = strdup(labels->names[i]);
    for (size_t i = 0; i < shares->n_items; i++) {
        if (split != LINNET_SPLIT_CLIENT) {
            (void)snprintf(name, sizeof(name), "device-%zu", i);
            shares->items[i].name = strdup(name);
        }
        if (!shares->items[i].name)
            return false;
    }
    return true;
}

static bool deal(const linnet_dataset *data, const linnet_dataset *eval, linnet_split split, double alpha,
                 const label_set *labels, uint64_t seed, linnet_shares *shares)
{
    size_t n_labels = labels->n_names ? labels->n_names : 1;
    size_t *device_of = calloc(n_labels, sizeof(*device_of));
    double *cumulative =
        split == LINNET_SPLIT_CLIENT ? NULL : calloc(n_labels * shares->n_items, sizeof(*cumulative));
    bool ok = device_of && (split == LINNET_SPLIT_CLIENT || cumulative);
    if (ok && split == LINNET_SPLIT_CLIENT) {
        choose_clients(labels, shares->n_items, device_of);
        ok = deal_by_client(data, false, labels, device_of, shares) &&
             (!eval || deal_by_client(eval, true, labels, device_of, shares));
    } else if (ok) {
        linnet_rng rng;
        linnet_rng_init(&rng, seed, 0x73706c6974 /* "split" */);
        draw_proportions(split, alpha, split == LINNET_SPLIT_IID ? 1 : labels->n_names, shares->n_items, &rng,
                         cumulative);
        ok = deal_by_label(data, false, split, labels, cumulative, &rng, shares) &&
             (!eval || deal_by_label(eval, true, split, labels, cumulative, &rng, shares));
    }
    ok = ok && name_shares(split, labels, device_of, shares);
    free(device_of);
    free(cumulative);
    return ok;
}

linnet_status linnet_shares_create(const linnet_dataset *data, const linnet_dataset *eval, linnet_split split,
                                   double alpha, size_t n_devices, size_t eval_records_max, uint64_t seed,
                                   linnet_shares **ret_shares, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    label_set labels = {0};
    linnet_shares *shares = NULL;
    if (data->n_records == 0)
        return linnet_fail(err, LINNET_ERR_ARG, "no records to deal to devices");
    if (!collect_labels(data, eval, &labels)) {
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory to deal %zu records", data->n_records);
        goto done;
    }
    if (split == LINNET_SPLIT_CLIENT && n_devices == 0)
        n_devices = labels.n_names;
    if (n_devices == 0 || n_devices > data->n_records ||
        (split == LINNET_SPLIT_CLIENT && n_devices > labels.n_names)) {
        status = linnet_fail(err, LINNET_ERR_RANGE,
                             "%zu devices, but the data has %zu clients and %zu records; ask for fewer "
                             "devices or another --split",
                             n_devices, labels.n_names, data->n_records);
        goto done;
    }
    shares = calloc(1, sizeof(*shares));
    if (shares)
        shares->items = calloc(n_devices, sizeof(*shares->items));
    if (!shares || !shares->items) {
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu devices", n_devices);
        goto done;
    }
    shares->n_items = n_devices;
    if (!deal(data, eval, split, alpha, &labels, seed, shares)) {
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory to deal %zu records", data->n_records);
        goto done;
    }
    for (size_t i = 0; i < n_devices; i++)
        order_and_thin(&shares->items[i], eval_records_max);
    *ret_shares = shares;
    shares = NULL;
done:
    release_labels(&labels);
    linnet_shares_destroy(shares);
    return status;
}

void linnet_shares_destroy(linnet_shares *shares)
{
    if (!shares)
        return;
    for (size_t i = 0; shares->items && i < shares->n_items; i++) {
        free(shares->items[i].name);
        free(shares->items[i].records);
        free(shares->items[i].eval_records);
    }
    free(shares->items);
    free(shares);
}
