/* Chunks measured by a model's tokens, which a server of the test's own counts. */
#include "common/http_client.h"
#include "common/json.h"
#include "tests/support/http_peer.h"
#include "tests/support/http_script.h"
#include "workers/ingest/cut.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { SIZE = 40, OVERLAP = 8 };

/* --- the server --- */

/* A token for every three letters, and `more` percent for what is longer than a piece. */
static atomic_int more;
static atomic_int longest_part; /* Bytes of the largest request. */
static atomic_int failures;     /* So many requests are answered with 503 first. */

static size_t tokens_of(struct sl_span text)
{
    size_t letters = 0;
    for (size_t i = 0; i < text.len; i++) {
        letters += text.data[i] > ' ' ? 1 : 0;
    }
    size_t tokens = (letters + 2) / 3;
    return text.len > 20 ? tokens + tokens * (size_t)more / 100 : tokens;
}

static void put_tokens(const struct sl_json *content, struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    const struct sl_json *item;
    sl_json_begin_object(&w);
    sl_json_key(&w, "tokens");
    sl_json_begin_array(&w);
    for (size_t at = 0; sl_json_each(content, &at, NULL, &item);) {
        size_t len = sl_json_type(item) == SL_JSON_STRING ? tokens_of(sl_json_string(item)) : 0;
        for (size_t i = 0; i < len; i++) {
            sl_json_put_int(&w, 7);
        }
        if (sl_json_type(item) == SL_JSON_INT) {
            sl_json_put_int(&w, sl_json_int(item));
        }
    }
    sl_json_end_array(&w);
    sl_json_end_object(&w);
}

static void answer_tokens(struct http_script_conn *conn)
{
    struct sl_json_doc *doc = NULL;
    struct sl_buf body, head;
    struct sl_span text = sl_span_of(strstr(conn->request, "\r\n\r\n") + 4);
    longest_part = (int)text.len > longest_part ? (int)text.len : longest_part;
    CHECK(strncmp(conn->request, "POST /tokenize HTTP/1.1\r\n", 25) == 0);
    CHECK(strstr(conn->request, "\r\nAuthorization: Bearer secret\r\n") != NULL);
    CHECK_INT(sl_json_parse(text, &doc, NULL, 0), 0);
    sl_buf_init(&body, 1 << 24);
    sl_buf_init(&head, 256);
    put_tokens(sl_json_get(sl_json_root(doc), "content"), &body);
    sl_buf_printf(&head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", body.len);
    http_script_send_bytes(conn, head.data, head.len);
    http_script_send_bytes(conn, body.data, body.len);
    sl_buf_fini(&head);
    sl_buf_fini(&body);
    sl_json_free(doc);
}

static void serve_tokens(struct http_script_conn *conn)
{
    while (http_script_read(conn)) {
        if (failures > 0) {
            failures--;
            http_script_send(conn, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
        } else {
            answer_tokens(conn);
        }
    }
}

static void serve_nothing_known(struct http_script_conn *conn)
{
    while (http_script_read(conn)) {
        http_script_send(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    }
}

static void serve_something_else(struct http_script_conn *conn)
{
    while (http_script_read(conn)) {
        http_script_send(conn, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"tokens\": [-1]}");
    }
}

static void serve_silence(struct http_script_conn *conn)
{
    CHECK(http_script_read(conn));
    http_script_await_close(conn);
}

/* --- cutting --- */

static struct sl_loop *loop;
static struct sl_http_client *http;
static struct http_script *server;
static struct ingest_cutter cutter;
static const struct ingest_cut_result *result;

static void up(http_script_fn *serve)
{
    static char url[64];
    char why[128];
    const struct sl_http_client_config http_config = {0};
    static struct ingest_cut_config config;
    more = longest_part = failures = 0;
    result = NULL;
    server = http_script_start(serve);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/v1", http_script_port(server));
    config = (struct ingest_cut_config){
        .size = SIZE, .overlap = OVERLAP, .unit = 3, .tokens = {url, "secret"}};
    CHECK_INT(sl_loop_create(&loop), 0);
    CHECK_INT(sl_http_client_create(loop, &http_config, &http), 0);
    CHECK_INT(ingest_cutter_init(&cutter, loop, http, &config, why, sizeof(why)), 0);
}

static void down(void)
{
    sl_http_client_destroy(http);
    sl_loop_destroy(loop);
    http_script_stop(server);
}

static void on_cut(void *ctx, const struct ingest_cut_result *cut)
{
    (void)ctx;
    CHECK(result == NULL);
    result = cut;
}

/* Many turns: a large text takes a hundred calls. */
static void wait_for_result(void)
{
    for (int turn = 0; turn < 50000 && result == NULL; turn++) {
        sl_loop_turn(loop, 5);
    }
    CHECK(result != NULL);
}

static struct ingest_cut *start(struct sl_span text)
{
    const struct sl_document document = {.doc_id = SL_SPAN("doc.txt"), .text = text};
    struct ingest_cut *cut = NULL;
    CHECK_INT(ingest_cut_start(&cutter, &document, on_cut, NULL, &cut), 0);
    return cut;
}

/* About 190 KB, in words of one to twelve letters. */
static void write_text(struct sl_buf *text)
{
    static const char word[] = "abcdefghijkl";
    sl_buf_init(text, 1 << 20);
    for (size_t i = 0; i < 25000; i++) {
        sl_buf_append(text, word, 1 + i * 7 % 12);
        sl_buf_append_text(text, i % 13 == 0 ? ". " : i % 101 == 0 ? "\n\n" : " ");
    }
    CHECK_INT(sl_buf_error(text), 0);
}

static void check_chunks(size_t least)
{
    CHECK_INT(result->err, 0);
    CHECK(result->count > 1000);
    size_t sum = 0;
    for (uint32_t i = 0; i < result->count; i++) {
        size_t tokens = tokens_of(result->texts[i]);
        CHECK(tokens <= SIZE);
        sum += tokens;
    }
    CHECK(sum / result->count >= least);
}

TEST(no_chunk_has_more_tokens_than_it_may)
{
    struct sl_buf text;
    write_text(&text);
    up(serve_tokens);
    struct ingest_cut *cut = start(sl_buf_span(&text));
    wait_for_result();
    check_chunks(SIZE * 3 / 5);
    CHECK(http_script_requests(server) > 10); /* In parts, and none is large. */
    CHECK(longest_part > 10000 && longest_part < 40000);
    ingest_cut_destroy(cut);
    down();
    sl_buf_fini(&text);
}

TEST(pieces_that_do_not_add_up_are_cut_again)
{
    struct sl_buf text;
    write_text(&text);
    up(serve_tokens);
    more = 40;
    struct ingest_cut *cut = start(sl_buf_span(&text));
    wait_for_result();
    check_chunks(SIZE / 2);
    ingest_cut_destroy(cut);
    down();
    sl_buf_fini(&text);
}

TEST(a_server_that_is_busy_is_asked_again)
{
    up(serve_tokens);
    failures = 2;
    struct ingest_cut *cut = start(SL_SPAN("one two three"));
    wait_for_result();
    CHECK_INT(result->err, 0);
    CHECK_INT(result->count, 1);
    CHECK_INT(http_script_requests(server), 4);
    ingest_cut_destroy(cut);
    down();
}

TEST(a_server_without_tokenize_is_said_to_have_none)
{
    static http_script_fn *const serve[] = {serve_nothing_known, serve_something_else};
    static const char *const want[] = {"needs llama.cpp's /tokenize, and the embedding server has",
                                       "does not answer as llama.cpp's does"};
    for (size_t i = 0; i < 2; i++) {
        up(serve[i]);
        struct ingest_cut *cut = start(SL_SPAN("one two three"));
        wait_for_result();
        CHECK(result->err != 0 && strstr(result->reason, want[i]) != NULL);
        CHECK_INT(http_script_requests(server), 1);
        ingest_cut_destroy(cut);
        down();
    }
}

TEST(a_text_that_is_not_utf8_is_not_sent)
{
    up(serve_tokens);
    struct ingest_cut *cut = start(SL_SPAN("caf\xe9 au lait"));
    wait_for_result();
    CHECK(result->err == -SL_EINVAL && strstr(result->reason, "at byte 3") != NULL);
    CHECK_INT(http_script_requests(server), 0);
    ingest_cut_destroy(cut);
    down();
}

TEST(a_cut_that_is_given_up_ends_its_call)
{
    up(serve_silence);
    struct ingest_cut *cut = start(SL_SPAN("one two three"));
    PEER_WAIT(loop, http_script_requests(server) == 1);
    ingest_cut_destroy(cut);
    PEER_WAIT(loop, http_script_peer_closed(server) == 1);
    CHECK(result == NULL);
    CHECK_INT(sl_http_client_in_flight(http), 0);
    down();
}

TEST(a_unit_of_model_tokens_needs_a_server)
{
    char why[128];
    const struct ingest_cut_config config = {
        .size = SIZE, .overlap = OVERLAP, .unit = 3, .tokens = {"", ""}};
    struct ingest_cutter none;
    CHECK_INT(ingest_cutter_init(&none, NULL, NULL, &config, why, sizeof(why)), -SL_EINVAL);
    CHECK(strstr(why, "needs SLUICE_EMBED_URL") != NULL);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"no_chunk_has_more_tokens_than_it_may", no_chunk_has_more_tokens_than_it_may},
        {"pieces_that_do_not_add_up_are_cut_again", pieces_that_do_not_add_up_are_cut_again},
        {"a_server_that_is_busy_is_asked_again", a_server_that_is_busy_is_asked_again},
        {"a_server_without_tokenize_is_said_to_have_none",
         a_server_without_tokenize_is_said_to_have_none},
        {"a_text_that_is_not_utf8_is_not_sent", a_text_that_is_not_utf8_is_not_sent},
        {"a_cut_that_is_given_up_ends_its_call", a_cut_that_is_given_up_ends_its_call},
        {"a_unit_of_model_tokens_needs_a_server", a_unit_of_model_tokens_needs_a_server},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
