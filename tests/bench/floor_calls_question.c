/*
 * One question: it embeds, searches both stores at once, reranks and reads the chat's stream. Each
 * answer is taken apart for the next request as soon as it is complete (floor_calls_json.c); the
 * stream's tokens are counted in curl's callback, at the time at which they are parsed.
 *
 * Questions and their easy handles are kept and used again, so that a call sets only its body. A
 * question that fails aborts its other calls and is given back; its measure_call is closed first.
 */
#include "tests/bench/floor_calls_internal.h"

#include "tests/bench/measure_clock.h"

#include <stdlib.h>

enum { BODY_MAX = 8 << 20, LINE_MAX_BYTES = 1 << 20 };

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct transfer *transfer = ctx;
    struct sl_span bytes = {data, size * count};
    long status = 0;
    if (transfer->kind != CALLS_CHAT) {
        sl_buf_append_span(&transfer->answer, bytes);
        return sl_buf_error(&transfer->answer) == 0 ? bytes.len : 0;
    }
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        return bytes.len;
    }
    struct question *question = transfer->question;
    long tokens = 0, events = 0;
    question->garbled = !calls_stream_read(&question->stream, bytes, &tokens, &events);
    if (tokens > 0) {
        measure_run_tokens(question->client->run, &question->call, tokens, events,
                           measure_now_ns());
    }
    return question->garbled ? 0 : bytes.len;
}

/* --- questions --- */

static bool make_transfer(struct question *question, enum calls_kind kind)
{
    struct transfer *transfer = &question->transfers[kind];
    struct calls_client *client = question->client;
    CURL *easy = curl_easy_init();
    bool good = easy != NULL;
    *transfer = (struct transfer){.question = question, .kind = kind, .easy = easy};
    sl_buf_init(&transfer->request, BODY_MAX);
    sl_buf_init(&transfer->answer, BODY_MAX);
#define SET(option, value) (good = good && curl_easy_setopt(easy, option, value) == CURLE_OK)
    SET(CURLOPT_URL, client->urls[kind]);
    SET(CURLOPT_HTTPHEADER, client->headers);
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, transfer);
    SET(CURLOPT_PRIVATE, transfer);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
#undef SET
    return good;
}

static struct question *make_question(struct calls_client *client)
{
    struct question *question = calloc(1, sizeof(*question));
    if (question == NULL) {
        return NULL;
    }
    question->client = client;
    question->next_made = client->made;
    client->made = question; /* Destroyed with the client, also when it is half made. */
    sl_list_init(&question->node);
    sl_buf_init(&question->text, BODY_MAX);
    sl_buf_init(&question->stream.line, LINE_MAX_BYTES);
    for (int kind = 0; kind < CALLS_KINDS; kind++) {
        if (!make_transfer(question, (enum calls_kind)kind)) {
            return NULL;
        }
    }
    return question;
}

struct question *question_take(struct calls_client *client)
{
    struct sl_list *node = sl_list_first(&client->free);
    if (node == NULL) {
        return make_question(client);
    }
    sl_list_remove(node);
    return SL_ITEM(node, struct question, node);
}

void question_give_back(struct question *question)
{
    for (int kind = 0; kind < CALLS_KINDS; kind++) {
        struct transfer *transfer = &question->transfers[kind];
        if (transfer->running) {
            curl_multi_remove_handle(question->client->multis[kind].handle, transfer->easy);
            transfer->running = false;
        }
    }
    calls_passages_clear(&question->passages);
    sl_buf_clear(&question->stream.line);
    question->stream.done = question->searched = question->garbled = false;
    sl_list_push(&question->client->free, &question->node);
}

void question_fail(struct question *question, enum measure_failure failure)
{
    measure_run_fail(question->client->run, &question->call, failure, measure_now_ns());
    question_give_back(question);
}

/* --- calls --- */

static void start_call(struct question *question, enum calls_kind kind)
{
    struct transfer *transfer = &question->transfers[kind];
    struct multi *multi = &question->client->multis[kind];
    curl_off_t len = (curl_off_t)transfer->request.len;
    sl_buf_clear(&transfer->answer);
    if (sl_buf_error(&transfer->request) != 0 ||
        curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, transfer->request.data) != CURLE_OK ||
        curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDSIZE_LARGE, len) != CURLE_OK ||
        curl_multi_add_handle(multi->handle, transfer->easy) != CURLM_OK) {
        question_fail(question, MEASURE_CONNECT);
        return;
    }
    transfer->running = true;
}

static struct sl_span answer_of(const struct question *question, enum calls_kind kind)
{
    return sl_buf_span(&question->transfers[kind].answer);
}

/* Makes the request of the next call, if the answers so far allow it. */
static void go_on(struct question *question, enum calls_kind kind, bool written)
{
    if (!written) {
        question_fail(question, MEASURE_GARBLED);
        return;
    }
    start_call(question, kind);
}

static struct sl_buf *request_of(struct question *question, enum calls_kind kind)
{
    struct sl_buf *request = &question->transfers[kind].request;
    sl_buf_clear(request);
    return request;
}

static void on_embedded(struct question *question)
{
    calls_write_keyword(request_of(question, CALLS_KEYWORD), sl_buf_span(&question->text));
    if (!calls_write_vector(request_of(question, CALLS_VECTOR), answer_of(question, CALLS_EMBED)) ||
        sl_buf_error(&question->transfers[CALLS_KEYWORD].request) != 0) {
        question_fail(question, MEASURE_GARBLED);
        return;
    }
    start_call(question, CALLS_VECTOR);
    if (question->transfers[CALLS_VECTOR].running) {
        start_call(question, CALLS_KEYWORD);
    }
}

static void on_searched(struct question *question)
{
    if (!question->searched) {
        question->searched = true;
        return;
    }
    go_on(question, CALLS_RERANK,
          calls_write_rerank(request_of(question, CALLS_RERANK), sl_buf_span(&question->text),
                             answer_of(question, CALLS_VECTOR), answer_of(question, CALLS_KEYWORD),
                             &question->passages));
}

static void on_answered(struct question *question)
{
    if (!question->stream.done) {
        question_fail(question, MEASURE_SHORT);
        return;
    }
    measure_run_end(question->client->run, &question->call, measure_now_ns());
    question_give_back(question);
}

void question_on_ended(struct question *question, enum calls_kind kind)
{
    switch (kind) {
    case CALLS_EMBED:
        on_embedded(question);
        break;
    case CALLS_VECTOR:
    case CALLS_KEYWORD:
        on_searched(question);
        break;
    case CALLS_RERANK:
        go_on(question, CALLS_CHAT,
              calls_write_chat(request_of(question, CALLS_CHAT), sl_buf_span(&question->text),
                               &question->passages, answer_of(question, CALLS_RERANK)));
        break;
    default:
        on_answered(question);
        break;
    }
}

static void write_text(struct question *question)
{
    struct calls_client *client = question->client;
    sl_buf_clear(&question->text);
    sl_buf_printf(&question->text, "Question %llu:", (unsigned long long)client->number++);
    while (question->text.len + 5 < (size_t)client->options->query_bytes) {
        sl_buf_append_text(&question->text, " what");
    }
}

void question_start(struct question *question)
{
    write_text(question);
    calls_write_embed(request_of(question, CALLS_EMBED), sl_buf_span(&question->text));
    start_call(question, CALLS_EMBED);
}

void question_destroy(struct question *question)
{
    for (int kind = 0; kind < CALLS_KINDS; kind++) {
        struct transfer *transfer = &question->transfers[kind];
        if (transfer->running) {
            curl_multi_remove_handle(question->client->multis[kind].handle, transfer->easy);
        }
        curl_easy_cleanup(transfer->easy);
        sl_buf_fini(&transfer->request);
        sl_buf_fini(&transfer->answer);
    }
    calls_passages_clear(&question->passages);
    sl_buf_fini(&question->text);
    sl_buf_fini(&question->stream.line);
    free(question);
}
