/* SPDX-License-Identifier: Apache-2.0 */
/* enroll, status, data, forget: the device's membership in a task, apart from taking part (command_run.c). */
#include "commands.h"

#include "linnet/agent.h"
#include "linnet/dataset.h"
#include "linnet/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DATA_BYTES_MAX ((size_t)1 << 30)
#define INVITE_FILE_BYTES_MAX 4096
#define REQUEST_CLASS_MAX 4294967295.0

static const char *const trial_warning =
    "The coordinator's operator also holds the enrolment authority: nothing here protects against a "
    "malicious operator.";

static const char *const separate_authority =
    "The enrolment authority is not the operator, the coordinator says: where that is so, masked sums are "
    "kept from a malicious operator, too, as long as at most C devices of a roster are with it.";

static void put_hex(json_t *object, const char *name, const void *bytes, size_t n_bytes)
{
    (void)json_object_set_new(object, name,
                              linnet_json_hex(bytes, n_bytes)); /* a missing field is seen by its reader */
}

/* ---- enroll ---- */

static int command_enroll(linnet_cli *cli, int argc, char **argv)
{
    const char *state = NULL, *url = NULL, *invite = NULL;
    uint64_t device_class = 0;
    linnet_option options[] = {
        CLIENT_REQUIRED("state", &state, "DIR", "this device's state directory; made if absent"),
        CLIENT_REQUIRED("coordinator", &url, "URL", "http:// or https:// address of the coordinator"),
        CLIENT_REQUIRED("invite", &invite, "CODE",
                        "the code from 'linnet-coordinator invite'; good for one device"),
        CLIENT_COUNT("class", &device_class, 0, REQUEST_CLASS_MAX,
                     "kind of device, a number that the operator gives meaning to"),
    };
    linnet_error err = {0};
    linnet_device_report report = {0};
    int result = linnet_cli_parse(cli, &client_command_enroll, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (result >= 0)
        return result;
    if (linnet_agent_enroll(state, url, invite, (uint32_t)device_class, &report, &err) != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    char id[2 * LINNET_DEVICE_ID_BYTES + 1];
    linnet_hex_write(report.device_id.bytes, LINNET_DEVICE_ID_BYTES, id);
    linnet_cli_say(cli, "Enrolled as device %s.\n%s%s", id, report.operator_is_authority ? trial_warning : "",
                   report.operator_is_authority ? "\n" : "");
    json_t *object = client_event("result");
    put_hex(object, "device_id", report.device_id.bytes, LINNET_DEVICE_ID_BYTES);
    client_put_text(object, "coordinator", url, strlen(url));
    (void)json_object_set_new(object, "operator_is_authority", json_boolean(report.operator_is_authority));
    linnet_cli_emit(cli, object);
    return 0;
}

const linnet_command client_command_enroll = {"enroll", NULL, "Join a federated task with an invite.",
                                              command_enroll};

/* ---- status ---- */

static json_t *ledger_json(const linnet_ledger_entry *entry)
{
    json_t *object = json_object();
    client_put_count(object, "round", entry->round);
    client_put_count(object, "version", entry->version);
    client_put_count(object, "bytes", entry->n_bytes);
    client_put_count(object, "weight", entry->sample_weight);
    put_hex(object, "echo", entry->echo.bytes, LINNET_HASH_BYTES);
    (void)json_object_set_new(object, "accepted", json_boolean(entry->is_accepted));
    if (entry->is_accepted) {
        char receipt[2 * LINNET_SIGNED_RECEIPT_BYTES + 1];
        linnet_hex_write(entry->receipt, sizeof(entry->receipt), receipt);
        client_put_text(object, "receipt", receipt, strlen(receipt));
    }
    return object;
}

/* The table of what was shared, and the same as JSON. */
static linnet_status list_ledger(linnet_kv *kv, linnet_table *table, json_t *array, linnet_error *err)
{
    linnet_ledger_entry entry;
    linnet_error last = {0};
    linnet_status status = linnet_device_ledger(kv, 0, &entry, &last);
    for (uint64_t i = 0; status == LINNET_OK; status = linnet_device_ledger(kv, ++i, &entry, &last)) {
        char bytes[16];
        linnet_table_cell(table, "%llu", (unsigned long long)entry.round);
        linnet_table_cell(table, "%llu", (unsigned long long)entry.version);
        linnet_table_cell(table, "%s", linnet_human_bytes(entry.n_bytes, bytes));
        linnet_table_cell(table, "%u", (unsigned)entry.sample_weight);
        linnet_table_cell(table, "%s", entry.is_accepted ? "yes" : "no");
        (void)json_array_append_new(array, ledger_json(&entry));
    }
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : linnet_fail(err, status, "%s", last.message);
}

static const char *profile_text(int profile)
{
    switch (profile) {
    case LINNET_PROFILE_PLAIN:
        return "plain: the coordinator is trusted and sees this device's deltas";
    case LINNET_PROFILE_SECURE:
        return "secure: the coordinator sees sums of many devices only";
    case LINNET_PROFILE_SECURE_DP:
        return "secure+dp: the coordinator sees noised sums only";
    case LINNET_PROFILE_CENTRAL_DP:
        return "central-dp: the coordinator is trusted, sees clipped deltas and adds the noise";
    default:
        return "none yet";
    }
}

static const char *round_key_text(linnet_vault_place place)
{
    switch (place) {
    case LINNET_VAULT_VOLATILE:
        return "in a volatile file: a round in flight survives a restart and dies with the power";
    case LINNET_VAULT_DISK:
        return "on the disk, as the policy says: whoever takes the disk has it too";
    case LINNET_VAULT_MEMORY:
        break;
    }
    return "in memory: no volatile file system is here, so a restart loses a round in flight";
}

static const char *unit_text(const linnet_privacy_total *spent)
{
    return spent->has_device_unit ? spent->has_record_unit ? "devices and records" : "devices" : "records";
}

static void say_budget(const linnet_cli *cli, const linnet_device_report *r)
{
    if (!r->has_budget || (r->spent.n_entries == 0 && r->dp_epsilon_max == 0))
        return;
    linnet_cli_say(cli, "privacy       epsilon %.4g spent at delta %g in %llu rounds", r->dp_epsilon,
                   r->dp_delta, (unsigned long long)r->spent.n_entries);
    if (r->spent.n_entries > 0)
        linnet_cli_say(cli, ", of %s", unit_text(&r->spent));
    if (r->dp_epsilon_max > 0)
        linnet_cli_say(cli, "; %.4g of %.4g left", fmax(0, r->dp_epsilon_max - r->dp_epsilon),
                       r->dp_epsilon_max);
    linnet_cli_say(cli, "\n");
    if (r->spent.n_damaged > 0)
        linnet_cli_say(cli, "              %llu entries are damaged and count as the costliest\n",
                       (unsigned long long)r->spent.n_damaged);
}

static void say_status(const linnet_cli *cli, const linnet_device_report *r)
{
    char id[2 * LINNET_DEVICE_ID_BYTES + 1], up[16], down[16];
    linnet_hex_write(r->device_id.bytes, LINNET_DEVICE_ID_BYTES, id);
    linnet_cli_say(
        cli, "device        %s\ncoordinator   %s\nphase         %s\nversion       %llu\nlast round    %llu\n",
        id, r->coordinator_url, r->phase, (unsigned long long)r->version, (unsigned long long)r->round);
    linnet_cli_say(cli, "contributions %llu accepted\ntraffic       %s sent, %s received\n",
                   (unsigned long long)r->n_contributions, linnet_human_bytes(r->bytes_up, up),
                   linnet_human_bytes(r->bytes_down, down));
    if (r->has_held_out_loss)
        linnet_cli_say(cli, "held-out loss %.4f nats a token\n", r->held_out_loss);
    linnet_cli_say(cli, "profile       %s\n", profile_text(r->profile));
    if (linnet_profile_is_secure(r->profile))
        linnet_cli_say(cli, "round key     %s\n", round_key_text(r->round_key));
    say_budget(cli, r);
    if (r->note[0] != '\0')
        linnet_cli_say(cli, "note          %s\n", r->note);
    linnet_cli_say(cli, "%s\n", r->operator_is_authority ? trial_warning : separate_authority);
}

static const char *place_name(linnet_vault_place place)
{
    static const char *const names[] = {"memory", "volatile", "disk"};
    return names[place];
}

/* What the store alone does not know: where the round key would lie, and what the ledger holds. */
static linnet_status report_guards(const char *state, const char *policy_path, const char *ledger_path,
                                   linnet_device_report *report, linnet_error *err)
{
    linnet_policy policy = linnet_policy_default();
    linnet_round_vault *vault = NULL;
    linnet_budget_ledger *ledger = NULL;
    linnet_status status = policy_path ? linnet_policy_load(policy_path, &policy, err) : LINNET_OK;
    if (status == LINNET_OK)
        status =
            linnet_round_vault_open(state, &report->device_id, policy.round_key_on_disk, NULL, &vault, err);
    if (status == LINNET_OK)
        status = linnet_budget_ledger_open(ledger_path ? ledger_path : state, &ledger, err);
    if (status == LINNET_OK) {
        report->round_key = linnet_round_vault_place(vault);
        linnet_device_budget(ledger, &policy, report);
    }
    linnet_budget_ledger_close(ledger);
    linnet_round_vault_close(vault);
    return status;
}

static json_t *status_json(const linnet_device_report *r)
{
    json_t *object = client_event("result");
    put_hex(object, "device_id", r->device_id.bytes, LINNET_DEVICE_ID_BYTES);
    client_put_text(object, "coordinator", r->coordinator_url, strlen(r->coordinator_url));
    client_put_text(object, "phase", r->phase, strlen(r->phase));
    const char *profile = r->profile == 0 ? "" : linnet_profile_name(r->profile);
    client_put_text(object, "profile", profile, strlen(profile));
    client_put_text(object, "note", r->note, strlen(r->note));
    client_put_text(object, "round_key", place_name(r->round_key), strlen(place_name(r->round_key)));
    if (r->has_budget) {
        client_put_count(object, "noised_rounds", r->spent.n_entries);
        client_put_number(object, "dp_epsilon", r->dp_epsilon);
        client_put_number(object, "dp_epsilon_max", r->dp_epsilon_max);
        client_put_number(object, "dp_delta", r->dp_delta);
    }
    client_put_count(object, "version", r->version);
    client_put_count(object, "round", r->round);
    client_put_count(object, "accepted", r->n_contributions);
    client_put_count(object, "bytes_up", r->bytes_up);
    client_put_count(object, "bytes_down", r->bytes_down);
    client_put_number(object, "held_out_loss", r->has_held_out_loss ? r->held_out_loss : (double)NAN);
    put_hex(object, "adapter_hash", r->installed.bytes, LINNET_HASH_BYTES);
    (void)json_object_set_new(object, "operator_is_authority", json_boolean(r->operator_is_authority));
    return object;
}

static linnet_status write_receipts(linnet_kv *kv, const char *path, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status = linnet_device_receipts(kv, &bytes, err);
    if (status == LINNET_OK)
        status = linnet_file_write(path, bytes.bytes, bytes.n_bytes, 0600, err);
    linnet_buffer_release(&bytes);
    return status;
}

static int command_status(linnet_cli *cli, int argc, char **argv)
{
    static const char *const headers[] = {"round", "version", "sent", "weight", "accepted"};
    const char *state = NULL, *policy = NULL, *ledger = NULL, *receipts = NULL;
    linnet_option options[] = {
        CLIENT_REQUIRED("state", &state, "DIR", "this device's state directory"),
        CLIENT_TEXT("policy", &policy, "FILE", "the policy given to 'run': what is left of its epsilon_max"),
        CLIENT_TEXT("ledger", &ledger, "DIR", "the ledger given to 'run'; absent: the state directory"),
        CLIENT_TEXT(
            "receipts", &receipts, "FILE",
            "also write what the coordinator signed for each contribution, for 'linnet-coordinator verify'"),
    };
    linnet_error err = {0};
    linnet_kv kv = {0};
    linnet_device_report report = {0};
    int result = linnet_cli_parse(cli, &client_command_status, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (result >= 0)
        return result;
    json_t *shared = json_array();
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    linnet_status status = linnet_kv_open_lmdb_reader(state, &kv, &err);
    if (status == LINNET_OK)
        status = linnet_device_status_of(&kv, &report, &err);
    if (status == LINNET_OK)
        status = report_guards(state, policy, ledger, &report, &err);
    if (status == LINNET_OK)
        status = list_ledger(&kv, table, shared, &err);
    if (status == LINNET_OK && receipts)
        status = write_receipts(&kv, receipts, &err);
    if (status == LINNET_OK) {
        say_status(cli, &report);
        if (!cli->json && !cli->quiet && json_array_size(shared) > 0) {
            linnet_cli_say(cli, "\nshared so far:\n");
            linnet_table_print(table, cli->out);
        }
        json_t *object = status_json(&report);
        (void)json_object_set(object, "shared", shared); /* a missing field is seen by its reader */
        linnet_cli_emit(cli, object);
    }
    linnet_table_destroy(table);
    json_decref(shared);
    if (kv.close)
        kv.close(kv.context);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_status = {"status", NULL, "What this device has done and shared so far.",
                                              command_status};

/* ---- data: the state's own store of texts ---- */

static linnet_status append_records(const char *path, const char *added, linnet_error *err)
{
    linnet_buffer all = {0}, more = {0};
    struct stat info;
    linnet_status status = LINNET_OK;
    if (stat(path, &info) == 0)
        status = linnet_file_read(path, DATA_BYTES_MAX, &all, err);
    if (status == LINNET_OK)
        status = linnet_file_read(added, DATA_BYTES_MAX, &more, err);
    if (status == LINNET_OK) {
        linnet_buffer_append(&all, more.bytes, more.n_bytes);
        if (all.n_bytes > 0 && all.bytes[all.n_bytes - 1] != '\n')
            linnet_buffer_append_u8(&all, '\n');
        status = all.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "texts of %zu bytes", more.n_bytes)
                            : linnet_file_write(path, all.bytes, all.n_bytes, 0600, err);
    }
    linnet_buffer_release(&more);
    linnet_buffer_release(&all);
    return status;
}

static linnet_status count_records(const char *path, size_t *ret_n, linnet_error *err)
{
    struct stat info;
    linnet_dataset *dataset = NULL;
    *ret_n = 0;
    if (stat(path, &info) != 0)
        return LINNET_OK;
    linnet_status status = linnet_dataset_load(path, false, &dataset, err);
    if (status == LINNET_OK)
        *ret_n = dataset->n_records;
    linnet_dataset_destroy(dataset);
    return status;
}

static linnet_status keep_texts(const char *state, const char *added, size_t *ret_added, size_t *ret_n,
                                linnet_error *err)
{
    linnet_kv kv = {0};
    char *path = linnet_path_join(state, "data.jsonl");
    linnet_status status = path ? linnet_kv_open_lmdb(state, false, &kv, err)
                                : linnet_fail(err, LINNET_ERR_NOMEM, "path"); /* the lock */
    *ret_added = 0;
    if (status == LINNET_OK && added)
        status = count_records(added, ret_added, err); /* every line is read before one is kept */
    if (status == LINNET_OK && added)
        status = append_records(path, added, err);
    if (status == LINNET_OK)
        status = count_records(path, ret_n, err);
    if (kv.close)
        kv.close(kv.context);
    free(path);
    return status;
}

static int command_data(linnet_cli *cli, int argc, char **argv)
{
    const char *state = NULL, *added = NULL;
    linnet_option options[] = {
        CLIENT_REQUIRED("state", &state, "DIR", "this device's state directory"),
        CLIENT_TEXT(
            "add", &added, "FILE",
            "JSON Lines to add to the device's own texts; 'run' trains on them when --data is absent"),
    };
    linnet_error err = {0};
    size_t n_added = 0, n = 0;
    struct stat info;
    int result = linnet_cli_parse(cli, &client_command_data, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (result >= 0)
        return result;
    if (added && stat(added, &info) != 0) {
        (void)linnet_fail_errno(&err, errno, "'%s'", added);
        return linnet_cli_fail(cli, &err);
    }
    if (keep_texts(state, added, &n_added, &n, &err) != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_cli_say(cli, "%zu records added, %zu in all. They stay on this device.\n", n_added, n);
    json_t *object = client_event("result");
    client_put_count(object, "added", n_added);
    client_put_count(object, "records", n);
    linnet_cli_emit(cli, object);
    return 0;
}

const linnet_command client_command_data = {"data", NULL, "Add texts to this device's own store.",
                                            command_data};

/* ---- forget ---- */

/* Zeros first: a deleted file's blocks stay readable on many disks. Flash may keep old copies all the
 * same. */
static void overwrite(const char *path)
{
    static const uint8_t zeros[65536];
    struct stat info;
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
        for (off_t left = info.st_size; left > 0;) {
            ssize_t n = write(fd, zeros, left < (off_t)sizeof(zeros) ? (size_t)left : sizeof(zeros));
            if (n <= 0)
                break; /* deleted all the same */
            left -= n;
        }
        (void)fsync(fd);
    }
    (void)close(fd);
}

static linnet_status remove_file(const char *directory, const char *name, linnet_error *err)
{
    char *path = linnet_path_join(directory, name);
    if (!path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "path");
    overwrite(path);
    linnet_status status = unlink(path) == 0 || errno == ENOENT
                               ? LINNET_OK
                               : linnet_fail_errno(err, errno, "cannot delete '%s'", path);
    free(path);
    return status;
}

/* The plain files of one directory, then the directory; what is in it that linnet did not make keeps it. */
static linnet_status remove_directory(const char *parent, const char *name, linnet_error *err)
{
    char *path = linnet_path_join(parent, name);
    DIR *dir = path ? opendir(path) : NULL;
    linnet_status status = path ? LINNET_OK : linnet_fail(err, LINNET_ERR_NOMEM, "path");
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry && status == LINNET_OK; entry = readdir(dir))
        if (entry->d_type == DT_REG)
            status = remove_file(path, entry->d_name, err);
    if (dir)
        closedir(dir);
    if (path)
        (void)rmdir(path);
    free(path);
    return status;
}

/* The volatile file; one that is not found dies with the power. */
static void forget_round_key(const char *state, linnet_kv *kv)
{
    linnet_device_report report;
    linnet_round_vault *vault = NULL;
    if (linnet_device_status_of(kv, &report, NULL) == LINNET_OK &&
        linnet_round_vault_open(state, &report.device_id, false, NULL, &vault, NULL) == LINNET_OK)
        linnet_round_vault_forget(vault);
}

static linnet_status forget(const char *state, linnet_error *err)
{
    static const char *const files[] = {"device.mdb", "device.mdb-lock", "data.jsonl", "round.key",
                                        "privacy.ledger"};
    static const char *const directories[] = {"objects", "adapter/current", "adapter/previous",
                                              "adapter/next", "adapter"};
    linnet_kv kv = {0};
    linnet_error why = {0};
    linnet_status status = linnet_kv_open_lmdb(state, false, &kv, &why); /* nobody else is using it */
    if (status == LINNET_ERR_BUSY || status == LINNET_ERR_NOT_FOUND || status == LINNET_ERR_DENIED)
        return linnet_fail(err, status, "%s", why.message);
    if (kv.close) { /* a damaged state is erased too */
        forget_round_key(state, &kv);
        kv.close(kv.context);
    }
    status = LINNET_OK;
    for (size_t i = 0; i < ARRAY_LEN(files) && status == LINNET_OK; i++)
        status = remove_file(state, files[i], err);
    for (size_t i = 0; i < ARRAY_LEN(directories) && status == LINNET_OK; i++)
        status = remove_directory(state, directories[i], err);
    if (status == LINNET_OK)
        status = remove_file(state, "lock", err);
    if (status == LINNET_OK)
        (void)rmdir(state); /* stays where there is something else in it */
    return status;
}

static int command_forget(linnet_cli *cli, int argc, char **argv)
{
    const char *state = NULL;
    bool yes = false;
    linnet_option options[] = {
        CLIENT_REQUIRED("state", &state, "DIR", "this device's state directory"),
        CLIENT_FLAG("yes", &yes,
                    "erase the key, the ledger, the texts and the adapters; there is no way back"),
    };
    linnet_error err = {0};
    int result = linnet_cli_parse(cli, &client_command_forget, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (result >= 0)
        return result;
    if (!yes)
        return linnet_cli_usage(
            cli, "this erases the device's key, ledger, texts and adapters in '%s' for good; say --yes",
            state);
    if (forget(state, &err) != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_cli_say(
        cli,
        "Erased. What was shared before stays in the sums; ask the coordinator to revoke this device.\n");
    json_t *object = client_event("result");
    client_put_text(object, "erased", state, strlen(state));
    linnet_cli_emit(cli, object);
    return 0;
}

const linnet_command client_command_forget = {"forget", NULL, "Erase this device's state.", command_forget};
