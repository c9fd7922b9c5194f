/* SPDX-License-Identifier: Apache-2.0 */
/* The built linnet-client on encoders: classify, evaluate and train on records with labels, and what is
 * refused. $E is an encoder with labels, $H the same without its head, $L a language model with the same
 * vocabulary. */
#include "client/command_fixture.h"
#include "client/encoder_model.h"

static vector_model encoder, headless, language;
static json_t *objects[3];

static void write_model(size_t i, json_t *object, vector_model *m, const char *variable)
{
    objects[i] = object;
    *m = (vector_model){.object = object};
    vector_write_file(m, NULL);
    assert_int_equal(setenv(variable, m->path, 1), 0);
}

static int set_up_models(void **state)
{
    static const char *const head[] = {"cls.weight", "cls.bias", "cls.output.weight", "cls.output.bias"};
    if (set_up(state) != 0)
        return -1;
    json_t *without = encoder_case("bert with a pooler");
    for (size_t i = 0; i < ARRAY_LEN(head); i++)
        encoder_drop(without, "tensors", head[i]);
    write_model(0, encoder_case("bert with a pooler"), &encoder, "E");
    write_model(1, without, &headless, "H");
    write_model(2, encoder_case("gpt2"), &language, "L");
    shell("cat >$T/data.jsonl <<'END'\n"
          "{\"text\":\"the film was good.\",\"label\":\"much\"}\n"
          "{\"text\":\"the film was bad\",\"label\":\"no\"}\n"
          "{\"text\":\"good sun\",\"label\":\"much\"}\n"
          "{\"text\":\"bad rain\",\"label\":0}\n"
          "{\"text\":\"sun was rain\",\"label\":\"a little\"}\n"
          "END");
    return 0;
}

static int tear_down_models(void **state)
{
    const vector_model *const models[] = {&encoder, &headless, &language};
    for (size_t i = 0; i < ARRAY_LEN(models); i++) {
        (void)unlink(models[i]->path);
        json_decref(objects[i]);
    }
    return tear_down(state);
}

static double at(const json_t *array, size_t i)
{
    return json_number_value(json_array_get(array, i));
}

static void a_text_gets_its_likeliest_label(void **state)
{
    (void)state;
    json_t *result = result_of("classify --model $E --text 'the film was good' --json");
    const json_t *labels = json_object_get(result, "labels"),
                 *probabilities = json_object_get(result, "probabilities");
    size_t best = (size_t)number(result, "label_index");
    double sum = 0;
    assert_int_equal(json_array_size(labels), 4);
    assert_int_equal(json_array_size(probabilities), 4);
    for (size_t i = 0; i < 4; i++) {
        sum += at(probabilities, i);
        assert_true(at(probabilities, i) <= at(probabilities, best));
    }
    assert_true(fabs(sum - 1) < 1e-6);
    assert_true(number(result, "probability") == at(probabilities, best));
    assert_true(json_equal(json_object_get(result, "label"), json_array_get(labels, best)));
    json_decref(result);
    outcome o = run("classify --model $E --text 'the film was good'");
    assert_int_equal(o.status, 0);
    assert_int_equal(n_lines(&o.out), 5);
    assert_non_null(strstr((const char *)o.out.bytes, "a little"));
    release(&o);
}

/* evaluate agrees with what classify says of every record. */
static void evaluate_tells_the_accuracy(void **state)
{
    (void)state;
    static const size_t labels[] = {2, 0, 2, 0, 1};
    json_t *evaluation = result_of("evaluate --model $E --data $T/data.jsonl --json");
    outcome o = run("classify --model $E --data $T/data.jsonl --json");
    double loss = 0, n_right = 0;
    size_t n = 0;
    assert_int_equal(o.status, 0);
    for (char *line = strtok((char *)o.out.bytes, "\n"); line && n < 5; line = strtok(NULL, "\n"), n++) {
        json_t *record = json_loads(line, 0, NULL);
        assert_int_equal(number(record, "line"), n + 1);
        loss -= log(at(json_object_get(record, "probabilities"), labels[n]));
        n_right += (size_t)number(record, "label_index") == labels[n];
        json_decref(record);
    }
    assert_int_equal(n, 5);
    assert_true(fabs(number(evaluation, "loss") - loss / 5) < 1e-6);
    assert_true(fabs(number(evaluation, "perplexity") - exp(loss / 5)) < 1e-5);
    assert_true(number(evaluation, "accuracy") == n_right / 5);
    assert_int_equal(number(evaluation, "records"), 5);
    assert_int_equal(number(evaluation, "tokens"), 5);
    json_decref(evaluation);
    release(&o);
    o = run("evaluate --model $E --data $T/data.jsonl --each");
    assert_int_equal(n_lines(&o.out), 6);
    assert_non_null(strstr((const char *)o.out.bytes, "of 5 labels right"));
    release(&o);
}

static void training_learns_the_labels(void **state)
{
    (void)state;
    json_t *result = result_of("train --model $E --data $T/data.jsonl --eval $T/data.jsonl --out $T/trained "
                               "--steps 60 --learning-rate 2e-2 --rank 4 --targets all --json");
    assert_true(number(result, "eval_loss_after") < 0.2 * number(result, "eval_loss_before"));
    json_decref(result);
    static const char *const adapters[] = {"$T/trained", "$T/trained/adapter.gguf"};
    for (size_t i = 0; i < ARRAY_LEN(adapters); i++) {
        char line[256];
        (void)snprintf(line, sizeof(line), "evaluate --model $E --adapter %s --data $T/data.jsonl --json",
                       adapters[i]);
        assert_true(result_number(line, "accuracy") == 1);
    }
    shell(PROGRAM "adapter merge --model $E --adapter $T/trained --type F32 --out $T/merged.gguf --quiet");
    assert_true(result_number("evaluate --model $T/merged.gguf --data $T/data.jsonl --json", "accuracy") ==
                1);
    result = result_of("classify --model $E --adapter $T/trained --text 'bad rain' --json");
    assert_string_equal(json_string_value(json_object_get(result, "label")), "no");
    json_decref(result);
}

static void what_does_not_fit_is_refused_in_a_line(void **state)
{
    (void)state;
    static const struct {
        const char *line, *part;
        int status;
    } cases[] = {
        {"generate --model $E --prompt the", "is an encoder", 1},
        {"chat --model $E", "is an encoder", 1},
        {"bench --model $E", "is an encoder", 1},
        {"serve --model $E", "is an encoder", 1},
        {"classify --model $H --text the", "has no tensor 'cls.output.weight'", 1},
        {"evaluate --model $H --data $T/data.jsonl", "has no tensor 'cls.output.weight'", 1},
        {"train --model $H --data $T/data.jsonl --out $T/no", "has no tensor 'cls.output.weight'", 1},
        {"classify --model $L --text the", "is a language model", 1},
        {"evaluate --model $E --data $T/texts.jsonl", "/texts.jsonl:1: ", 1},
        {"train --model $E --data $T/texts.jsonl --out $T/no", "/texts.jsonl:1: ", 1},
        {"classify --model $E --data $T/chats.jsonl", "/chats.jsonl:2: ", 1},
        {"classify --model $E", "one of --text and --data", 2},
        {"classify --model $E --text a --data $T/data.jsonl", "one of --text and --data", 2},
        {"classify --model $E --text a --context 65", "--context 65", 1},
        {"classify --model $E --text a --context 1", "too short", 1},
    };
    shell("echo '{\"text\":\"good\"}' >$T/texts.jsonl; cp $T/texts.jsonl $T/chats.jsonl; "
          "echo '{\"messages\":[{\"role\":\"user\",\"content\":\"good\"}]}' >>$T/chats.jsonl");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        outcome o = run(cases[i].line);
        if (o.status != cases[i].status || !strstr((const char *)o.err.bytes, cases[i].part) ||
            (o.status == 1 && n_lines(&o.err) != 1))
            fail_msg("%s: exit status %d, '%s'", cases[i].line, o.status, (const char *)o.err.bytes);
        release(&o);
    }
}

static void inspect_names_the_labels(void **state)
{
    (void)state;
    json_t *result = result_of("inspect $E --json");
    assert_int_equal(json_array_size(json_object_get(result, "labels")), 4);
    json_decref(result);
    outcome o = run("inspect $E");
    assert_non_null(strstr((const char *)o.out.bytes, "4 labels: no, a little, much, all of it\n"));
    release(&o);
}

static void a_quantised_encoder_still_classifies(void **state)
{
    (void)state;
    shell(PROGRAM "quantize --model $E --type F16 --out $T/f16.gguf --quiet");
    double want = result_number("evaluate --model $E --data $T/data.jsonl --json", "loss");
    double got = result_number("evaluate --model $T/f16.gguf --data $T/data.jsonl --json", "loss");
    assert_true(fabs(got - want) < 1e-2 && got != want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_gets_its_likeliest_label),
        cmocka_unit_test(evaluate_tells_the_accuracy),
        cmocka_unit_test(training_learns_the_labels),
        cmocka_unit_test(what_does_not_fit_is_refused_in_a_line),
        cmocka_unit_test(inspect_names_the_labels),
        cmocka_unit_test(a_quantised_encoder_still_classifies),
    };
    return cmocka_run_group_tests(tests, set_up_models, tear_down_models);
}
