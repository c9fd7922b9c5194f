/* SPDX-License-Identifier: Apache-2.0 */
/* audit and verify: the same verification, over the state beside a serving process, or over a log file on a
 * machine that has nothing else. What verify is given by a device or by another party is not trusted either:
 * only what the coordinator's signature is under counts against it. */
#include "commands.h"

#include "linnet/audit.h"
#include "linnet/file.h"
#include "linnet/transcript.h"

#include <stdlib.h>

/* ---- audit ---- */

static void say_entry(const linnet_cli *cli, const char *type, uint64_t number, const linnet_hash *body,
                      const char *flaw)
{
    char hash[2 * LINNET_HASH_BYTES + 1];
    linnet_hex_write(body, sizeof(*body), hash);
    linnet_cli_say(cli, "%-9s %6llu  %s  %s\n", type, (unsigned long long)number, hash, flaw ? flaw : "good");
    linnet_cli_emit(cli, json_pack("{s:s, s:s, s:I, s:s, s:s?}", "event", "entry", "type", type, "number",
                                   (json_int_t)number, "hash", hash, "flaw", flaw));
}

static linnet_status write_export(linnet_coordinator *c, const char *path, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status = linnet_coordinator_log_export(c, &bytes, err);
    if (status == LINNET_OK)
        status = linnet_file_write(path, bytes.bytes, bytes.n_bytes, 0644, err);
    linnet_buffer_release(&bytes);
    return status;
}

static int run_audit(linnet_cli *cli, int argc, char **argv)
{
    const char *state = NULL, *log = NULL;
    linnet_option options[] = {
        {.name = "state",
         .kind = LINNET_OPTION_TEXT,
         .value = &state,
         .argument = "DIR",
         .help = "state directory",
         .required = true},
        {.name = "export",
         .kind = LINNET_OPTION_TEXT,
         .value = &log,
         .argument = "LOG",
         .help = "also write the log, for 'verify' elsewhere"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_audit, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (done >= 0)
        return done;
    linnet_coordinator *c = NULL;
    linnet_error err = {0};
    linnet_audit_entry *entries = NULL;
    size_t n = 0, n_bad = 0;
    linnet_status status = coordinator_open_beside(state, &c, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_audit(c, &entries, &n, &err);
    if (status == LINNET_OK && log)
        status = write_export(c, log, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK) {
        free(entries);
        return linnet_cli_fail(cli, &err);
    }
    for (size_t i = 0; i < n; i++) {
        n_bad += entries[i].flaw != NULL;
        say_entry(cli, entries[i].type, entries[i].number, &entries[i].hash, entries[i].flaw);
    }
    linnet_cli_say(cli, "%zu entries, %zu flaws%s\n", n, n_bad,
                   n_bad ? "" : ": every release names the one before, every signature is good");
    linnet_cli_emit(cli, json_pack("{s:s, s:I, s:I}", "event", "result", "entries", (json_int_t)n, "flaws",
                                   (json_int_t)n_bad));
    free(entries);
    return n_bad ? 1 : 0;
}

const linnet_command coordinator_command_audit = {
    .name = "audit",
    .summary = "Verify the transcript: releases, announcements, rosters, sums, signatures",
    .run = run_audit};

/* ---- verify ---- */

typedef struct verify_files {
    const char *log, *receipts, *other, *out;
} verify_files;

/* A file under verification: its map, and what was read of it. */
typedef struct log_file {
    linnet_map map;
    linnet_log log;
    bool is_open;
} log_file;

static linnet_status log_open(const char *path, log_file *file, linnet_error *err)
{
    linnet_status status = linnet_map_open(path, &file->map, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_log_parse(file->map.bytes, file->map.n_bytes, &file->log, err);
    if (status != LINNET_OK) {
        linnet_map_close(&file->map);
        return linnet_error_prefix(err, status, "'%s'", path);
    }
    file->is_open = true;
    return LINNET_OK;
}

static void log_close(log_file *file)
{
    if (!file->is_open)
        return;
    linnet_log_release(&file->log);
    linnet_map_close(&file->map);
}

static const char *where_text(const linnet_finding *finding)
{
    return finding->where == LINNET_FINDING_LOG        ? "entry"
           : finding->where == LINNET_FINDING_RECEIPTS ? "receipt"
                                                       : "other log, entry";
}

static void say_findings(const linnet_cli *cli, const linnet_log *log, const linnet_log_report *r)
{
    static const char *const files[] = {"log", "receipts", "other"};
    for (size_t i = 0; i < r->n_findings; i++) {
        const linnet_finding *f = &r->findings[i];
        bool is_entry = f->where == LINNET_FINDING_LOG && f->index < log->n_entries;
        if (f->index == SIZE_MAX)
            linnet_cli_say(cli, "%s: %s\n", files[f->where], f->flaw);
        else
            linnet_cli_say(cli, "%s %zu%s%s: %s\n", where_text(f), f->index, is_entry ? ", " : "",
                           is_entry ? linnet_log_type_name(log->entries[f->index].type) : "", f->flaw);
        linnet_cli_emit(
            cli, json_pack("{s:s, s:s, s:o, s:s}", "event", "finding", "file", files[f->where], "index",
                           f->index == SIZE_MAX ? json_null() : json_integer((json_int_t)f->index), "flaw",
                           f->flaw));
    }
}

static int say_report(const linnet_cli *cli, const linnet_log *log, const linnet_log_report *r,
                      const char *evidence)
{
    say_findings(cli, log, r);
    linnet_cli_say(cli, "%zu entries: %llu releases, %llu rounds, %llu closed, %llu void\n", log->n_entries,
                   (unsigned long long)r->n_releases, (unsigned long long)r->n_rounds,
                   (unsigned long long)r->n_closed, (unsigned long long)r->n_void);
    if (r->dp_rounds > 0)
        linnet_cli_say(cli, "epsilon %.6g over %llu rounds, counted anew\n", r->dp_epsilon,
                       (unsigned long long)r->dp_rounds);
    if (r->n_included + r->n_unlisted > 0)
        linnet_cli_say(cli, "accepted contributions: %llu in their sums, %llu in rounds that name none\n",
                       (unsigned long long)r->n_included, (unsigned long long)r->n_unlisted);
    if (evidence)
        linnet_cli_say(cli, "THE COORDINATOR SIGNED TWO THINGS FOR ONE SLOT (%llu times): evidence in %s\n",
                       (unsigned long long)r->n_equivocations, evidence);
    linnet_cli_say(cli, "%zu flaws. The coordinator's key, to compare: ", r->n_findings);
    char key[2 * LINNET_PUBLIC_KEY_BYTES + 1];
    linnet_hex_write(log->coordinator.bytes, sizeof(log->coordinator.bytes), key);
    linnet_cli_say(cli, "%s\n", key);
    linnet_cli_emit(cli, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s?, s:s}",
                                   "event", "result", "entries", (json_int_t)log->n_entries, "flaws",
                                   (json_int_t)r->n_findings, "releases", (json_int_t)r->n_releases, "rounds",
                                   (json_int_t)r->n_rounds, "closed", (json_int_t)r->n_closed, "void",
                                   (json_int_t)r->n_void, "included", (json_int_t)r->n_included, "unlisted",
                                   (json_int_t)r->n_unlisted, "equivocations", (json_int_t)r->n_equivocations,
                                   "epsilon", r->dp_epsilon, "evidence", evidence, "coordinator", key));
    return r->n_findings > 0 || r->n_equivocations > 0 ? 1 : 0;
}

static int verify_log(linnet_cli *cli, const verify_files *files)
{
    linnet_error err = {0};
    log_file log = {.is_open = false}, other = {.is_open = false};
    linnet_buffer bytes = {0};
    linnet_receipts receipts = {.n_records = 0};
    linnet_log_report report = {.n_findings = 0};
    char *evidence = NULL;
    size_t n_evidence = strlen(files->log) + sizeof(".evidence");
    int result = 1;
    linnet_status status = log_open(files->log, &log, &err);
    if (status == LINNET_OK && files->other)
        status = log_open(files->other, &other, &err);
    if (status == LINNET_OK && files->receipts) {
        status = linnet_file_read(files->receipts, LINNET_OBJECT_BYTES_MAX, &bytes, &err);
        if (status == LINNET_OK)
            status = linnet_receipts_parse(bytes.bytes, bytes.n_bytes, &receipts, &err);
    }
    if (status == LINNET_OK)
        status = linnet_log_verify(&log.log, files->receipts ? &receipts : NULL,
                                   files->other ? &other.log : NULL, &report, &err);
    if (status == LINNET_OK && !(evidence = malloc(n_evidence + (files->out ? strlen(files->out) : 0))))
        status = linnet_fail(&err, LINNET_ERR_NOMEM, "path");
    if (status == LINNET_OK) {
        (void)sprintf(evidence, "%s%s", files->out ? files->out : files->log, files->out ? "" : ".evidence");
        if (report.n_equivocations > 0)
            status = linnet_file_write(evidence, report.evidence.bytes, report.evidence.n_bytes, 0644, &err);
    }
    result = status == LINNET_OK
                 ? say_report(cli, &log.log, &report, report.n_equivocations > 0 ? evidence : NULL)
                 : linnet_cli_fail(cli, &err);
    free(evidence);
    linnet_log_report_release(&report);
    linnet_receipts_release(&receipts);
    linnet_buffer_release(&bytes);
    log_close(&other);
    log_close(&log);
    return result;
}

static int verify_evidence(linnet_cli *cli, const char *path)
{
    linnet_error err = {0};
    linnet_buffer bytes = {0};
    linnet_evidence evidence = {.kind = 0};
    char key[2 * LINNET_PUBLIC_KEY_BYTES + 1];
    linnet_status status = linnet_file_read(path, LINNET_OBJECT_BYTES_MAX, &bytes, &err);
    if (status == LINNET_OK)
        status = linnet_evidence_check(bytes.bytes, bytes.n_bytes, &evidence, &err);
    linnet_hex_write(evidence.coordinator.bytes, sizeof(evidence.coordinator.bytes), key);
    linnet_buffer_release(&bytes);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_cli_say(cli, "The owner of key %s signed two bodies for one slot: %s.\n", key,
                   linnet_slot_name(evidence.kind));
    linnet_cli_emit(cli, json_pack("{s:s, s:s, s:s}", "event", "result", "evidence",
                                   linnet_slot_name(evidence.kind), "coordinator", key));
    return 0;
}

static int run_verify(linnet_cli *cli, int argc, char **argv)
{
    verify_files files = {0};
    const char *evidence = NULL;
    linnet_option options[] = {
        {.name = "receipts",
         .kind = LINNET_OPTION_TEXT,
         .value = &files.receipts,
         .argument = "FILE",
         .help =
             "a device's receipts ('linnet-client status --receipts'): its contributions must be in the log"},
        {.name = "other",
         .kind = LINNET_OPTION_TEXT,
         .value = &files.other,
         .argument = "LOG2",
         .help = "another party's log of the task: the two must agree"},
        {.name = "out",
         .kind = LINNET_OPTION_TEXT,
         .value = &files.out,
         .argument = "FILE",
         .help = "where evidence of equivocation goes; without it LOG.evidence"},
        {.name = "evidence",
         .kind = LINNET_OPTION_TEXT,
         .value = &evidence,
         .argument = "FILE",
         .help = "check such a file alone, without a log"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_verify, options, ARRAY_LEN(options), argc, argv, 0, 1);
    if (done >= 0)
        return done;
    if ((cli->n_positionals == 1) == (evidence != NULL))
        return linnet_cli_usage(cli, "name either a log or --evidence FILE");
    if (evidence)
        return verify_evidence(cli, evidence);
    files.log = cli->positionals[0];
    return verify_log(cli, &files);
}

const linnet_command coordinator_command_verify = {
    .name = "verify",
    .arguments = "[LOG]",
    .summary = "Check an exported log, without a state directory or network",
    .run = run_verify};
