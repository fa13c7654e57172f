/*
 * `sluice ask "question"`: one query over the gateway's event stream, its text on the screen as it
 * comes. With --json the gateway's whole result instead, for programs.
 *
 * A stream whose connection breaks is gone on with behind its last event, from whichever gateway
 * answers at the address, for as long as the query is kept for a caller who comes back. One that
 * ends without its last event all the same is an error: half an answer must not look like a whole
 * one. Since the query outlives a broken connection, ctrl-C cancels it by name.
 */
#include "workers/cli/answer.h"
#include "workers/cli/cli.h"

#include "common/backoff.h"
#include "common/clock.h"
#include "common/codec.h"
#include "common/http_client.h"
#include "common/http_text.h"
#include "common/loop.h"
#include "common/sse.h"

#include <signal.h>

static const char help[] =
    "usage: sluice ask \"QUESTION\" [OPTION...]\n\n"
    "Asks the gateway and streams the answer, then its sources and where the time went.\n\n"
    "  --collection C   the documents to search                    (default)\n"
    "  --top-n N        passages that the answer is made from      (5; 1 to 50)\n"
    "  --max-tokens N   length of the answer at most               (the gateway's; 1 to 32768)\n"
    "  --search         only the passages, no answer\n"
    "  --timeout T      for everything, such as 500ms, 60s, 2m     (60s)\n"
    "  --json           the whole result as JSON when it is there\n\n"
    "A connection that breaks is taken up again where it broke. Ctrl-C cancels the query.\n\n"
    "variables: SLUICE_URL (http://127.0.0.1:8080), SLUICE_API_KEY, NO_COLOR\n\n"
    "examples:\n"
    "  sluice ask \"How long does the quarantine last?\"\n"
    "  sluice ask --search --top-n 10 \"redis maxmemory\"\n"
    "  sluice ask --json \"How do I scale a pool?\" | jq -r .answer\n\n"
    "exit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted\n";

enum {
    EVENT_MAX = 8 << 20,
    BODY_MAX = 64 << 20,
    CONNECT_MS = 5000,
    IDLE_MS = 45000,  /* Three of the comment lines that keep a stream alive. */
    GRACE_MS = 10000, /* The gateway's own time-out comes first and says more. */
    AGAIN_MS = 20000, /* How long a broken stream is tried to be gone on with. */
    AGAIN_BASE_MS = 100,
    AGAIN_CAP_MS = 1000,
    CANCEL_MS = 3000,
};
static const char on_disconnect[] = "grace:10";

struct ask {
    /* Arguments. */
    const char *question, *collection;
    long long top_n, max_tokens, timeout_ms;
    bool search, json;

    struct sl_loop *loop;
    struct sl_http_client *http;
    struct sl_http_call *call;
    struct sl_signal *sigint;
    struct sl_sse_reader sse;
    struct cli_answer answer;
    struct sl_buf url, authorization, request;
    struct sl_buf body; /* Of a response that is no stream. */
    int status;
    char id[65];           /* The query's, once the gateway has said it. */
    char last[32];         /* The last event's. */
    bool begun;            /* The answer is being streamed. */
    char broke[256];       /* Why the stream broke; empty: it did not. */
    uint64_t again_end_ms; /* Then it is given up. */
    uint64_t end_ms;       /* All is. */
    struct sl_backoff backoff;
    struct sl_timer again;
    int exit_code;
};

static void on_again(struct sl_timer *timer);
static void fail(struct ask *ask, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void fail(struct ask *ask, const char *format, ...)
{
    va_list args;
    cli_answer_close_text(&ask->answer);
    fputs("sluice ask: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    ask->exit_code = CLI_FAILED;
}

/* --- the response --- */

static void on_header(void *ctx, struct sl_span name, struct sl_span value)
{
    struct ask *ask = ctx;
    if (sl_span_equal_nocase(name, SL_SPAN("sluice-id")) && sl_id_valid(value)) {
        snprintf(ask->id, sizeof(ask->id), SL_SPAN_FMT, SL_SPAN_ARG(value));
    }
}

static int on_event(void *ctx, const struct sl_sse_event *event)
{
    struct ask *ask = ctx;
    if (event->id.len > 0 && event->id.len < sizeof(ask->last) && sl_http_is_value(event->id)) {
        snprintf(ask->last, sizeof(ask->last), SL_SPAN_FMT, SL_SPAN_ARG(event->id));
    }
    ask->broke[0] = '\0'; /* It goes on. */
    return cli_answer_event(&ask->answer, event->type, event->data);
}

static int on_head(void *ctx, const struct sl_http_response *response)
{
    struct ask *ask = ctx;
    ask->status = response->status;
    if (response->status == 200 && !ask->json &&
        !sl_span_begins(response->type, "text/event-stream")) {
        return -SL_EPROTO;
    }
    ask->begun = ask->begun || (response->status == 200 && !ask->json && ask->id[0] != '\0');
    return 0;
}

static int on_data(void *ctx, struct sl_span bytes)
{
    struct ask *ask = ctx;
    if (ask->status == 200 && !ask->json) {
        return sl_sse_reader_feed(&ask->sse, bytes);
    }
    sl_buf_append_span(&ask->body, bytes);
    return sl_buf_error(&ask->body);
}

static void on_refused(struct ask *ask)
{
    struct sl_buf text;
    sl_buf_init(&text, 4096);
    cli_describe_error(sl_buf_span(&ask->body), &text);
    fail(ask, SL_SPAN_FMT "%sstatus %d from %s", SL_SPAN_ARG(sl_buf_span(&text)),
         text.len > 0 ? ": " : "", ask->status, cli_options.url);
    sl_buf_fini(&text);
}

static void on_result(struct ask *ask)
{
    struct sl_json_doc *doc = NULL;
    if (sl_json_parse(sl_buf_span(&ask->body), &doc, NULL, 0) != 0) {
        fail(ask, "%s answered with something else than JSON (SLUICE_URL)", cli_options.url);
        return;
    }
    const struct sl_json *outcome = sl_json_get(sl_json_root(doc), "outcome");
    bool done = outcome != NULL && sl_json_type(outcome) == SL_JSON_STRING &&
                sl_span_is(sl_json_string(outcome), "done");
    fwrite(ask->body.data, 1, ask->body.len, stdout);
    if (ask->body.data[ask->body.len - 1] != '\n') {
        fputc('\n', stdout);
    }
    ask->exit_code = done ? CLI_DONE : CLI_FAILED;
    sl_json_free(doc);
}

/* The connection broke, or the gateway is on its way back: worth another try? */
static bool goes_on(const struct ask *ask, int err)
{
    uint64_t now = sl_clock_now_ms();
    bool is_cut = err == 0 || err == -SL_ECONN || err == -SL_ECUT || err == -SL_ETIMEDOUT;
    bool is_passing = ask->status == 0 || ask->status == 200 || ask->status >= 502;
    return ask->begun && is_cut && is_passing && now < ask->end_ms &&
           (ask->broke[0] == '\0' || now < ask->again_end_ms);
}

static void go_on_later(struct ask *ask, const char *why)
{
    if (ask->broke[0] == '\0') {
        snprintf(ask->broke, sizeof(ask->broke), "%s", why);
        ask->again_end_ms = sl_clock_now_ms() + AGAIN_MS;
        sl_backoff_init(&ask->backoff, AGAIN_BASE_MS, AGAIN_CAP_MS, sl_clock_now_us());
    }
    sl_timer_start(ask->loop, &ask->again, sl_backoff_next_ms(&ask->backoff), on_again);
}

static void on_broken(struct ask *ask, const char *why)
{
    struct sl_buf text;
    sl_buf_init(&text, 4096);
    if (ask->broke[0] != '\0' && ask->status != 0 && ask->status != 200) {
        sl_buf_append_text(&text, "; then: ");
        cli_describe_error(sl_buf_span(&ask->body), &text);
    }
    fail(ask, "the connection to %s ended before the answer did: %s" SL_SPAN_FMT, cli_options.url,
         ask->broke[0] != '\0' ? ask->broke : why, SL_SPAN_ARG(sl_buf_span(&text)));
    sl_buf_fini(&text);
}

static void on_end(void *ctx, int err, const struct sl_http_response *response, struct sl_span body,
                   const char *detail)
{
    struct ask *ask = ctx;
    const char *why = err != 0 ? detail : "no last event came";
    (void)response;
    (void)body;
    ask->call = NULL;
    if (cli_answer_ended(&ask->answer)) {
        cli_answer_finish(&ask->answer);
        ask->exit_code = ask->answer.failed ? CLI_FAILED : CLI_DONE;
    } else if (goes_on(ask, err)) {
        go_on_later(ask, why);
        return;
    } else if (ask->broke[0] != '\0') {
        on_broken(ask, why);
    } else if (err != 0 && ask->status == 0) {
        fail(ask, "cannot reach the gateway at %s (SLUICE_URL): %s", cli_options.url, detail);
    } else if (err == -SL_EPROTO && ask->status == 200) {
        fail(ask, "%s answered with something else than a stream of events (SLUICE_URL)",
             cli_options.url);
    } else if (err != 0 || (ask->status == 200 && !ask->json)) {
        on_broken(ask, why);
    } else if (ask->status != 200) {
        on_refused(ask);
    } else {
        on_result(ask);
    }
    sl_loop_stop(ask->loop);
}

/* --- the request --- */

static void write_request(struct ask *ask)
{
    struct sl_json_writer w = {.out = &ask->request};
    sl_json_begin_object(&w);
    sl_json_key(&w, "query");
    sl_json_put_string(&w, sl_span_of(ask->question));
    if (ask->collection != NULL) {
        sl_json_key(&w, "collection");
        sl_json_put_string(&w, sl_span_of(ask->collection));
    }
    if (ask->search) {
        sl_json_key(&w, "mode");
        sl_json_put_string(&w, SL_SPAN("search"));
    }
    sl_json_key(&w, "top_n");
    sl_json_put_int(&w, ask->top_n);
    if (ask->max_tokens > 0) {
        sl_json_key(&w, "max_tokens");
        sl_json_put_int(&w, ask->max_tokens);
    }
    sl_json_key(&w, "timeout_ms");
    sl_json_put_int(&w, ask->timeout_ms);
    if (!ask->json) { /* A whole answer cannot be gone on with. */
        sl_json_key(&w, "on_disconnect");
        sl_json_put_string(&w, sl_span_of(on_disconnect));
    }
    sl_json_end_object(&w);
}

static void name_url(struct ask *ask, const char *path, const char *tail)
{
    size_t len = strlen(cli_options.url);
    while (len > 0 && cli_options.url[len - 1] == '/') {
        len--;
    }
    sl_buf_clear(&ask->url);
    sl_buf_printf(&ask->url, "%.*s%s%s%s", (int)len, cli_options.url, path,
                  tail != NULL ? ask->id : "", tail != NULL ? tail : "");
    sl_buf_append(&ask->url, "", 1);
    sl_buf_clear(&ask->authorization);
    sl_buf_printf(&ask->authorization, "Bearer %s", cli_options.api_key);
}

/* To the URL that was named. */
static int send_request(struct ask *ask, const char *method,
                        const struct sl_http_callbacks *callbacks, uint64_t total_ms)
{
    struct sl_http_header headers[4] = {
        {SL_SPAN("Accept"), ask->json ? SL_SPAN("application/json") : SL_SPAN("text/event-stream")},
    };
    size_t count = 1;
    bool has_body = strcmp(method, "POST") == 0;
    if (has_body) {
        headers[count++] =
            (struct sl_http_header){SL_SPAN("Content-Type"), SL_SPAN("application/json")};
    } else if (ask->last[0] != '\0') {
        headers[count++] = (struct sl_http_header){SL_SPAN("Last-Event-ID"), sl_span_of(ask->last)};
    }
    if (cli_options.api_key[0] != '\0') {
        headers[count++] =
            (struct sl_http_header){SL_SPAN("Authorization"), sl_buf_span(&ask->authorization)};
    }
    const struct sl_http_request request = {
        .method = method,
        .url = ask->url.data,
        .headers = headers,
        .header_count = count,
        .body = has_body ? sl_buf_span(&ask->request) : SL_SPAN(""),
        .connect_timeout_ms = CONNECT_MS,
        .idle_timeout_ms = ask->json ? 0 : IDLE_MS,
        .total_timeout_ms = (uint32_t)total_ms,
        .callbacks = callbacks,
        .ctx = ask,
    };
    int rv = sl_buf_error(&ask->url);
    rv = rv != 0 ? rv : sl_buf_error(&ask->authorization);
    rv = rv != 0 ? rv : sl_buf_error(&ask->request);
    return rv != 0 ? rv : sl_http_start(ask->http, &request, &ask->call);
}

static const struct sl_http_callbacks answering = {
    .on_header = on_header, .on_head = on_head, .on_data = on_data, .on_end = on_end};

static int send_question(struct ask *ask)
{
    uint64_t total_ms = (uint64_t)ask->timeout_ms + GRACE_MS;
    ask->end_ms = sl_clock_now_ms() + total_ms;
    name_url(ask, "/v1/query", NULL);
    write_request(ask);
    return send_request(ask, "POST", &answering, total_ms);
}

static void on_again(struct sl_timer *timer)
{
    struct ask *ask = SL_ITEM(timer, struct ask, again);
    uint64_t now = sl_clock_now_ms();
    ask->status = 0;
    sl_buf_clear(&ask->body);
    sl_sse_reader_fini(&ask->sse); /* Half an event may be in it. */
    sl_sse_reader_init(&ask->sse, EVENT_MAX, on_event, ask);
    name_url(ask, "/v1/queries/", "/events");
    int rv = send_request(ask, "GET", &answering, now < ask->end_ms ? ask->end_ms - now : 1);
    if (rv != 0) {
        fail(ask, "%s", sl_error_text(rv));
        sl_loop_stop(ask->loop);
    }
}

/* --- ctrl-C --- */

static void on_cancelled(void *ctx, int err, const struct sl_http_response *response,
                         struct sl_span body, const char *detail)
{
    struct ask *ask = ctx;
    (void)err; /* What is not told now, the end of its grace tells the gateway. */
    (void)response;
    (void)body;
    (void)detail;
    ask->call = NULL;
    sl_loop_stop(ask->loop);
}

static void on_sigint(void *ctx, int signum)
{
    static const struct sl_http_callbacks callbacks = {.on_end = on_cancelled};
    struct ask *ask = ctx;
    bool again = ask->exit_code == CLI_INTERRUPTED;
    (void)signum;
    if (ask->call != NULL) {
        sl_http_cancel(ask->call);
        ask->call = NULL;
    }
    sl_timer_stop(ask->loop, &ask->again);
    cli_answer_close_text(&ask->answer);
    ask->exit_code = CLI_INTERRUPTED;
    name_url(ask, "/v1/queries/", "");
    if (again || ask->id[0] == '\0' || send_request(ask, "DELETE", &callbacks, CANCEL_MS) != 0) {
        sl_loop_stop(ask->loop);
    }
}

/* --- the command --- */

static int run(struct ask *ask)
{
    const struct sl_http_client_config config = {.max_connections = 1};
    signal(SIGPIPE, SIG_IGN);
    int rv = sl_loop_create(&ask->loop);
    rv = rv != 0 ? rv : sl_signal_create(ask->loop, SIGINT, on_sigint, ask, &ask->sigint);
    rv = rv != 0 ? rv : sl_http_client_create(ask->loop, &config, &ask->http);
    rv = rv != 0 ? rv : send_question(ask);
    if (rv != 0) {
        fail(ask, "%s", sl_error_text(rv));
    } else {
        sl_loop_run(ask->loop);
    }
    if (ask->loop != NULL) {
        sl_timer_stop(ask->loop, &ask->again);
        sl_http_client_destroy(ask->http);
        sl_signal_destroy(ask->sigint);
        sl_loop_destroy(ask->loop);
    }
    return ask->exit_code;
}

static int ask_question(struct ask *ask)
{
    sl_sse_reader_init(&ask->sse, EVENT_MAX, on_event, ask);
    cli_answer_init(&ask->answer, "ask", stdout, stderr);
    sl_buf_init(&ask->url, 4096);
    sl_buf_init(&ask->authorization, 16384);
    sl_buf_init(&ask->request, 1 << 20);
    sl_buf_init(&ask->body, BODY_MAX);
    int code = run(ask);
    sl_sse_reader_fini(&ask->sse);
    cli_answer_fini(&ask->answer);
    sl_buf_fini(&ask->url);
    sl_buf_fini(&ask->authorization);
    sl_buf_fini(&ask->request);
    sl_buf_fini(&ask->body);
    return code;
}

int cli_ask(int argc, char **argv)
{
    struct ask ask = {.top_n = 5, .timeout_ms = 60000};
    struct cli_list words = {.len = 0};
    const struct cli_arg args[] = {
        {"--collection", CLI_TEXT, &ask.collection, 0, 0},
        {"--top-n", CLI_NUMBER, &ask.top_n, 1, 50},
        {"--max-tokens", CLI_NUMBER, &ask.max_tokens, 1, 32768},
        {"--timeout", CLI_DURATION, &ask.timeout_ms, 100, 600000},
        {"--search", CLI_SWITCH, &ask.search, 0, 0},
        {"--json", CLI_SWITCH, &ask.json, 0, 0},
        {.name = NULL},
    };
    int code = cli_parse("ask", help, args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len != 1 || words.items[0][0] == '\0') {
        return cli_usage_error("ask", words.len < 2 ? "the question is missing"
                                                    : "expected one question, in quotes");
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    ask.question = words.items[0];
    code = ask_question(&ask);
    sl_options_fini(options);
    return code;
}
