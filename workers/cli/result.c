/*
 * `sluice result ID`: what became of a query, from any gateway: its state while it runs, then its
 * result, shown as `sluice ask` shows an answer.
 *
 * With --wait the gateway is asked again until the query has ended. Whatever may pass by itself
 * counts as not ended then: a job that no worker has seen yet is not known, and a gateway may be on
 * its way back.
 */
#include "workers/cli/answer.h"
#include "workers/cli/cli.h"

#include "common/clock.h"
#include "common/codec.h"
#include "common/http_client.h"
#include "common/loop.h"

#include <signal.h>

static const char help[] =
    "usage: sluice result ID [OPTION...]\n\n"
    "Shows the result of a query, whoever asked it, or how far the query is.\n\n"
    "  --wait T   asks again until it has ended, such as 30s or 5m\n"
    "  --json     what the gateway says, as JSON\n\n"
    "variables: SLUICE_URL (http://127.0.0.1:8080), SLUICE_API_KEY, NO_COLOR\n\n"
    "examples:\n"
    "  sluice result 0190f1b2-6c1e-7abc-8def-0123456789ab\n"
    "  sluice result order-17 --wait 1m --json | jq -r .answer\n\n"
    "exit status: 0 it is done, 1 it failed, or has not ended, or is not known, 2 wrong usage or\n"
    "configuration, 130 interrupted\n";

enum { BODY_MAX = 64 << 20, CONNECT_MS = 5000, TOTAL_MS = 20000, AGAIN_MS = 500 };

struct result {
    /* Arguments. */
    const char *id;
    long long wait_ms;
    bool json;

    struct sl_loop *loop;
    struct sl_http_client *http;
    struct sl_http_call *call;
    struct sl_signal *sigint;
    struct sl_timer again;
    uint64_t end_ms;
    struct sl_buf url, authorization;
    int exit_code;
};

/* --- what is shown --- */

static void show_state(const struct result *result, const struct sl_json *root, struct sl_span body)
{
    const struct sl_json *state = sl_json_get(root, "state"), *stage = sl_json_get(root, "stage");
    bool has_stage = stage != NULL && sl_json_type(stage) == SL_JSON_STRING;
    if (result->json) {
        printf(SL_SPAN_FMT "\n", SL_SPAN_ARG(body));
    } else if (has_stage) {
        printf(SL_SPAN_FMT ", last taken up by " SL_SPAN_FMT "\n",
               SL_SPAN_ARG(sl_json_string(state)), SL_SPAN_ARG(sl_json_string(stage)));
    } else {
        printf(SL_SPAN_FMT "\n", SL_SPAN_ARG(sl_json_string(state)));
    }
}

static int show_result(const struct result *result, const struct sl_json *root, struct sl_span body)
{
    struct cli_answer answer;
    bool is_done = sl_span_is(sl_json_string(sl_json_get(root, "outcome")), "done");
    if (result->json) {
        printf(SL_SPAN_FMT "\n", SL_SPAN_ARG(body));
        return is_done ? CLI_DONE : CLI_FAILED;
    }
    cli_answer_init(&answer, "result", stdout, stderr);
    int rv = cli_answer_result(&answer, body);
    if (rv == 0) {
        cli_answer_finish(&answer);
    } else {
        fprintf(stderr, "sluice result: %s\n", sl_error_text(rv));
    }
    cli_answer_fini(&answer);
    return rv == 0 && is_done ? CLI_DONE : CLI_FAILED;
}

/* --- asking --- */

static void ask(struct result *result);

static void on_again(struct sl_timer *timer)
{
    ask(SL_ITEM(timer, struct result, again));
}

/* Whether it is asked again. */
static bool waits(struct result *result)
{
    uint64_t now = sl_clock_now_ms();
    if (now >= result->end_ms) {
        return false;
    }
    uint64_t left = result->end_ms - now;
    sl_timer_start(result->loop, &result->again, left < AGAIN_MS ? left : AGAIN_MS, on_again);
    return true;
}

static bool is_text(const struct sl_json *value)
{
    return value != NULL && sl_json_type(value) == SL_JSON_STRING;
}

/* A whole 200. False: it is asked again. */
static bool on_answer(struct result *result, struct sl_span body)
{
    struct sl_json_doc *doc = NULL;
    const struct sl_json *root = sl_json_parse(body, &doc, NULL, 0) == 0 ? sl_json_root(doc) : NULL;
    bool ends = true;
    if (is_text(sl_json_get(root, "outcome"))) {
        result->exit_code = show_result(result, root, body);
    } else if (!is_text(sl_json_get(root, "state"))) {
        fprintf(stderr,
                "sluice result: %s answered with something else than a result "
                "(SLUICE_URL)\n",
                cli_options.url);
    } else if (!waits(result)) {
        show_state(result, root, body);
    } else {
        ends = false;
    }
    sl_json_free(doc);
    return ends;
}

static void on_refused(int status, struct sl_span body)
{
    struct sl_buf text;
    sl_buf_init(&text, 4096);
    cli_describe_error(body, &text);
    fprintf(stderr, "sluice result: " SL_SPAN_FMT "%sstatus %d from %s\n",
            SL_SPAN_ARG(sl_buf_span(&text)), text.len > 0 ? ": " : "", status, cli_options.url);
    sl_buf_fini(&text);
}

static void on_end(void *ctx, int err, const struct sl_http_response *response, struct sl_span body,
                   const char *detail)
{
    struct result *result = ctx;
    bool passes = err != 0 || response->status == 404 || response->status >= 502;
    result->call = NULL;
    if (err == 0 && response->status == 200) {
        if (!on_answer(result, body)) {
            return;
        }
    } else if (passes && waits(result)) {
        return;
    } else if (err != 0) {
        fprintf(stderr, "sluice result: cannot reach the gateway at %s (SLUICE_URL): %s\n",
                cli_options.url, detail);
    } else {
        on_refused(response->status, body);
    }
    sl_loop_stop(result->loop);
}

static void ask(struct result *result)
{
    static const struct sl_http_callbacks callbacks = {.on_end = on_end};
    const struct sl_http_header headers[] = {
        {SL_SPAN("Accept"), SL_SPAN("application/json")},
        {SL_SPAN("Authorization"), sl_buf_span(&result->authorization)},
    };
    const struct sl_http_request request = {
        .method = "GET",
        .url = result->url.data,
        .headers = headers,
        .header_count = cli_options.api_key[0] != '\0' ? 2 : 1,
        .connect_timeout_ms = CONNECT_MS,
        .total_timeout_ms = TOTAL_MS,
        .max_body = BODY_MAX,
        .callbacks = &callbacks,
        .ctx = result,
    };
    int rv = sl_http_start(result->http, &request, &result->call);
    if (rv != 0) {
        fprintf(stderr, "sluice result: %s\n", sl_error_text(rv));
        sl_loop_stop(result->loop);
    }
}

static void on_sigint(void *ctx, int signum)
{
    struct result *result = ctx;
    (void)signum;
    result->exit_code = CLI_INTERRUPTED;
    sl_loop_stop(result->loop);
}

/* --- the command --- */

static int name_url(struct result *result)
{
    size_t len = strlen(cli_options.url);
    while (len > 0 && cli_options.url[len - 1] == '/') {
        len--;
    }
    sl_buf_printf(&result->url, "%.*s/v1/queries/%s", (int)len, cli_options.url, result->id);
    sl_buf_append(&result->url, "", 1);
    sl_buf_printf(&result->authorization, "Bearer %s", cli_options.api_key);
    int rv = sl_buf_error(&result->url);
    return rv != 0 ? rv : sl_buf_error(&result->authorization);
}

static int run(struct result *result)
{
    const struct sl_http_client_config config = {.max_connections = 1};
    signal(SIGPIPE, SIG_IGN);
    int rv = name_url(result);
    rv = rv != 0 ? rv : sl_loop_create(&result->loop);
    rv = rv != 0 ? rv : sl_signal_create(result->loop, SIGINT, on_sigint, result, &result->sigint);
    rv = rv != 0 ? rv : sl_http_client_create(result->loop, &config, &result->http);
    if (rv != 0) {
        fprintf(stderr, "sluice result: %s\n", sl_error_text(rv));
    } else {
        result->end_ms = sl_clock_now_ms() + (uint64_t)result->wait_ms;
        ask(result);
        sl_loop_run(result->loop);
    }
    if (result->loop != NULL) {
        sl_timer_stop(result->loop, &result->again);
        if (result->call != NULL) {
            sl_http_cancel(result->call);
        }
        sl_http_client_destroy(result->http);
        sl_signal_destroy(result->sigint);
        sl_loop_destroy(result->loop);
    }
    return result->exit_code;
}

int cli_result(int argc, char **argv)
{
    struct result result = {.exit_code = CLI_FAILED};
    struct cli_list words = {.len = 0};
    const struct cli_arg args[] = {
        {"--wait", CLI_DURATION, &result.wait_ms, 1, 86400000},
        {"--json", CLI_SWITCH, &result.json, 0, 0},
        {.name = NULL},
    };
    int code = cli_parse("result", help, args, argc, argv, &words);
    if (code != CLI_GO_ON) {
        return code;
    }
    if (words.len != 1) {
        return cli_usage_error("result", words.len == 0 ? "the query's id is missing"
                                                        : "expected one query's id");
    }
    if (!sl_id_valid(sl_span_of(words.items[0]))) {
        return cli_usage_error("result", "an id has 1 to 64 characters of A-Z a-z 0-9 . _ -");
    }
    struct sl_options *options = cli_load_options();
    if (options == NULL) {
        return CLI_USAGE;
    }
    result.id = words.items[0];
    sl_buf_init(&result.url, 4096);
    sl_buf_init(&result.authorization, 16384);
    code = run(&result);
    sl_buf_fini(&result.url);
    sl_buf_fini(&result.authorization);
    sl_options_fini(options);
    return code;
}
