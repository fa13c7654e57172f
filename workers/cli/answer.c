/*
 * What `sluice ask` and `sluice result` show. The text of the answer goes out as each delta comes;
 * sources come before it and are kept until it has ended, so that they stand below it; then a table
 * of where the time went. All of it is read from JSON that came over the network: a field that is
 * missing or of another type leaves its place empty.
 */
#include "workers/cli/answer.h"

#include "workers/cli/cli.h"
#include "workers/cli/table.h"

#include <inttypes.h>

enum { LINE_MAX_BYTES = 4096, NAME_MAX_CHARS = 60 };

/* --- reading --- */

static struct sl_span get_text(const struct sl_json *object, const char *key)
{
    const struct sl_json *value = sl_json_get(object, key);
    bool is_text = value != NULL && sl_json_type(value) == SL_JSON_STRING;
    return is_text ? sl_json_string(value) : (struct sl_span){"", 0};
}

static int64_t get_int(const struct sl_json *object, const char *key)
{
    const struct sl_json *value = sl_json_get(object, key);
    return value != NULL && sl_json_type(value) == SL_JSON_INT ? sl_json_int(value) : 0;
}

static double get_number(const struct sl_json *object, const char *key)
{
    const struct sl_json *value = sl_json_get(object, key);
    bool is_number = value != NULL &&
                     (sl_json_type(value) == SL_JSON_INT || sl_json_type(value) == SL_JSON_NUMBER);
    return is_number ? sl_json_number(value) : 0;
}

/* The value of this type at key; NULL when there is none. */
static const struct sl_json *get_typed(const struct sl_json *object, const char *key,
                                       enum sl_json_type type)
{
    const struct sl_json *value = sl_json_get(object, key);
    return value != NULL && sl_json_type(value) == type ? value : NULL;
}

void cli_describe_error(struct sl_span body, struct sl_buf *out)
{
    struct sl_json_doc *doc = NULL;
    const struct sl_json *error = NULL;
    if (sl_json_parse(body, &doc, NULL, 0) == 0) {
        error = sl_json_get(sl_json_root(doc), "error");
    }
    struct sl_span message = get_text(error, "message");
    struct sl_span code = get_text(error, "code"), param = get_text(error, "param");
    cli_put_first_line(out, message.len > 0 ? message : body, LINE_MAX_BYTES / 8);
    if (code.len > 0 || param.len > 0) {
        sl_buf_printf(out, " (" SL_SPAN_FMT "%s" SL_SPAN_FMT ")", SL_SPAN_ARG(code),
                      code.len > 0 && param.len > 0 ? ", " : "", SL_SPAN_ARG(param));
    }
    sl_json_free(doc);
}

/* --- events --- */

void cli_answer_init(struct cli_answer *answer, const char *command, FILE *out, FILE *err)
{
    *answer = (struct cli_answer){.command = command, .err = err};
    cli_terminal_init(&answer->out, out);
}

void cli_answer_fini(struct cli_answer *answer)
{
    sl_json_free(answer->sources);
    sl_json_free(answer->end);
    answer->sources = answer->end = NULL;
}

void cli_answer_close_text(struct cli_answer *answer)
{
    if (answer->text_open) {
        fputc('\n', answer->out.out);
        fflush(answer->out.out);
        answer->text_open = false;
    }
}

static void put_text(struct cli_answer *answer, struct sl_span text)
{
    cli_put_text(&answer->out, text);
    fflush(answer->out.out);
    if (text.len > 0) {
        answer->text_open = text.data[text.len - 1] != '\n';
    }
}

static void keep(struct sl_json_doc **place, struct sl_json_doc *doc)
{
    sl_json_free(*place);
    *place = doc;
}

int cli_answer_event(struct cli_answer *answer, struct sl_span type, struct sl_span data)
{
    struct sl_json_doc *doc = NULL;
    if (cli_answer_ended(answer) || sl_span_is(data, "[DONE]")) {
        return 0; /* Nothing after the terminal event counts. */
    }
    if (sl_json_parse(data, &doc, NULL, 0) != 0) {
        return -SL_EPROTO;
    }
    if (sl_span_is(type, "sources")) {
        keep(&answer->sources, doc);
    } else if (sl_span_is(type, "done") || sl_span_is(type, "error")) {
        answer->failed = sl_span_is(type, "error");
        keep(&answer->end, doc);
    } else {
        if (sl_span_is(type, "delta")) {
            put_text(answer, get_text(sl_json_root(doc), "text"));
        } else if (sl_span_is(type, "restart")) {
            cli_answer_close_text(answer);
            fprintf(answer->err, "sluice %s: a worker was lost, the answer begins again\n",
                    answer->command);
        }
        sl_json_free(doc);
    }
    return 0;
}

int cli_answer_result(struct cli_answer *answer, struct sl_span result)
{
    struct sl_json_doc *sources = NULL, *end = NULL;
    int rv = sl_json_parse(result, &sources, NULL, 0);
    rv = rv != 0 ? rv : sl_json_parse(result, &end, NULL, 0);
    if (rv != 0) {
        sl_json_free(sources);
        return rv;
    }
    keep(&answer->sources, sources);
    keep(&answer->end, end);
    answer->failed = !sl_span_is(get_text(sl_json_root(end), "outcome"), "done");
    put_text(answer, get_text(sl_json_root(end), "answer"));
    return 0;
}

bool cli_answer_ended(const struct cli_answer *answer)
{
    return answer->end != NULL;
}

/* --- after the end --- */

static void print_source(const struct cli_answer *answer, const struct sl_json *source)
{
    struct sl_buf name, line;
    const struct cli_terminal *out = &answer->out;
    sl_buf_init(&name, LINE_MAX_BYTES);
    sl_buf_init(&line, LINE_MAX_BYTES);
    sl_buf_printf(&name, "[%" PRId64 "] ", get_int(source, "n"));
    cli_put_first_line(&name, get_text(source, "doc_id"), NAME_MAX_CHARS);
    sl_buf_printf(&name, "#%" PRId64 "  %.3f", get_int(source, "chunk_index"),
                  get_number(source, "score"));
    size_t used = cli_text_width(sl_buf_span(&name)) + 2;
    size_t room = (size_t)out->width > used + 20 ? (size_t)out->width - used : 20;
    cli_put_first_line(&line, get_text(source, "text"), room);
    cli_put_text(out, sl_buf_span(&name));
    fprintf(out->out, "  %s", cli_style(out, CLI_FAINT));
    cli_put_text(out, sl_buf_span(&line));
    fprintf(out->out, "%s\n", cli_style(out, CLI_PLAIN));
    sl_buf_fini(&name);
    sl_buf_fini(&line);
}

static void print_sources(const struct cli_answer *answer)
{
    const struct sl_json *chunks =
        get_typed(answer->sources != NULL ? sl_json_root(answer->sources) : NULL, "source_chunks",
                  SL_JSON_ARRAY);
    const struct cli_terminal *out = &answer->out;
    const struct sl_json *source;
    size_t at = 0;
    if (chunks == NULL || sl_json_len(chunks) == 0) {
        fprintf(out->out, "\nno sources were found\n");
        return;
    }
    fprintf(out->out, "\n%ssources%s\n", cli_style(out, CLI_BOLD), cli_style(out, CLI_PLAIN));
    while (sl_json_each(chunks, &at, NULL, &source)) {
        print_source(answer, source);
    }
}

static void print_times(const struct cli_answer *answer)
{
    const struct sl_json *end = sl_json_root(answer->end),
                         *stages = get_typed(end, "stages", SL_JSON_OBJECT);
    static const char *const columns[] = {"queue_ms", "wait_ms", "work_ms", "attempts"};
    static const char *const heads[] = {"stage", "queue ms", "wait ms", "work ms", "calls"};
    const struct sl_json *stage;
    struct cli_table table;
    struct sl_span name;
    cli_table_init(&table, "lrrrr");
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        cli_table_cell(&table, CLI_PLAIN, "%s", heads[i]);
    }
    for (size_t at = 0; stages != NULL && sl_json_each(stages, &at, &name, &stage);) {
        cli_table_cell(&table, CLI_PLAIN, SL_SPAN_FMT, SL_SPAN_ARG(name));
        for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
            cli_table_cell(&table, CLI_PLAIN, "%" PRId64, get_int(stage, columns[i]));
        }
    }
    fputc('\n', answer->out.out);
    if (cli_table_print(&table, &answer->out) != 0) {
        fprintf(answer->err, "sluice %s: %s\n", answer->command, sl_error_text(-SL_ENOMEM));
    }
    cli_table_fini(&table);
    fprintf(answer->out.out, "total %" PRId64 " ms", get_int(end, "total_ms"));
    if (get_int(end, "ttft_ms") > 0) {
        fprintf(answer->out.out, ", first token after %" PRId64 " ms", get_int(end, "ttft_ms"));
    }
    fputc('\n', answer->out.out);
}

/* "answered without: keyword, rerank" */
static void print_degraded(const struct cli_answer *answer)
{
    const struct sl_json *degraded =
        get_typed(sl_json_root(answer->end), "degraded", SL_JSON_ARRAY);
    const struct cli_terminal *out = &answer->out;
    const struct sl_json *name;
    const char *before = "answered without: ";
    for (size_t at = 0; degraded != NULL && sl_json_each(degraded, &at, NULL, &name);) {
        if (sl_json_type(name) == SL_JSON_STRING) {
            fprintf(out->out, "%s%s", at == 1 ? cli_style(out, CLI_YELLOW) : "", before);
            cli_put_text(out, sl_json_string(name));
            before = ", ";
        }
    }
    if (degraded != NULL && sl_json_len(degraded) > 0) {
        fprintf(out->out, "%s\n", cli_style(out, CLI_PLAIN));
    }
}

static void print_error(const struct cli_answer *answer)
{
    const struct sl_json *error = sl_json_get(sl_json_root(answer->end), "error");
    struct sl_span message = get_text(error, "message"), code = get_text(error, "code");
    struct sl_span stage = get_text(error, "stage");
    struct sl_buf line;
    sl_buf_init(&line, LINE_MAX_BYTES);
    cli_put_first_line(&line, message.len > 0 ? message : SL_SPAN("the query failed"),
                       LINE_MAX_BYTES / 8);
    sl_buf_printf(&line, " (" SL_SPAN_FMT "%s" SL_SPAN_FMT ")", SL_SPAN_ARG(code),
                  stage.len > 0 ? " in " : "", SL_SPAN_ARG(stage));
    if (sl_span_is(code, "timeout") && sl_span_is(stage, "gateway")) {
        /* No stage noticed the deadline, as happens when one does not run. */
        sl_buf_append_text(&line, ": sluice status shows what runs and what waits");
    }
    fprintf(answer->err, "sluice %s: " SL_SPAN_FMT "\n", answer->command,
            SL_SPAN_ARG(sl_buf_span(&line)));
    sl_buf_fini(&line);
}

void cli_answer_finish(struct cli_answer *answer)
{
    cli_answer_close_text(answer);
    if (answer->failed) {
        print_error(answer);
        return;
    }
    print_sources(answer);
    print_times(answer);
    print_degraded(answer);
    fflush(answer->out.out);
}
