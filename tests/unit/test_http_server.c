/*
 * Which bytes are a request: every case of tests/support/http_cases.h in one piece, cut in two at
 * every place, and byte by byte. And what the handler gets to see of a request.
 */
#include "common/http_server.h"
#include "tests/support/fake_tcp.h"
#include "tests/support/http_cases.h"
#include "tests/support/test.h"

static struct sl_loop *loop;
static struct sl_http_server *server;

static size_t max_body(void *ctx, struct sl_span method, struct sl_span path)
{
    (void)ctx;
    CHECK(method.len > 0 && path.len > 0);
    return HTTP_CASE_MAX_BODY;
}

static void on_request(void *ctx, struct sl_http_exchange *exchange)
{
    char text[512];
    (void)ctx;
    int len = snprintf(text, sizeof(text), "%.*s %.*s %.*s %.*s",
                       SL_SPAN_ARG(sl_http_method(exchange)), SL_SPAN_ARG(sl_http_path(exchange)),
                       SL_SPAN_ARG(sl_http_query(exchange)), SL_SPAN_ARG(sl_http_body(exchange)));
    sl_http_respond(exchange, 200, "text/plain", NULL, 0, (struct sl_span){text, (size_t)len});
}

static void error_body(void *ctx, int status, const char *why, struct sl_buf *body)
{
    (void)ctx;
    CHECK(why != NULL && why[0] != '\0');
    sl_buf_printf(body, "%d: %s\n", status, why);
}

static void begin(void (*handler)(void *ctx, struct sl_http_exchange *exchange))
{
    const struct sl_http_server_config config = {
        .address = "fake",
        .max_connections = 10,
        .max_header_bytes = HTTP_CASE_MAX_HEAD,
        .header_timeout_ms = 1000,
        .body_timeout_ms = 1000,
        .idle_timeout_ms = 1000,
        .stall_timeout_ms = 1000,
        .max_write_queue = 1000,
    };
    const struct sl_http_server_callbacks callbacks = {
        .max_body = max_body, .on_request = handler, .error_body = error_body};
    char why[64];
    CHECK(sl_loop_create(&loop) == 0);
    CHECK(sl_http_server_create(loop, &config, &callbacks, NULL, &server, why, sizeof(why)) == 0);
}

static void finish(struct sl_tcp *tcp)
{
    sl_http_server_destroy(server);
    sl_loop_destroy(loop);
    fake_free(tcp);
}

static void check_answer(const struct http_case *c, struct sl_tcp *tcp)
{
    char got[64];
    sl_buf_append(&tcp->out, "", 1);
    http_case_summary(tcp->out.data, !fake_open(tcp), got, sizeof(got));
    if (c->want != NULL) {
        CHECK_STR(got, c->want);
    }
    CHECK(c->text == NULL || strstr(tcp->out.data, c->text) != NULL);
    CHECK(!tcp->destroyed);
    CHECK(tcp->closing == (strstr(tcp->out.data, "connection: close") != NULL));
}

/* Sends the case with cuts before the bytes cut, cut + step, ... */
static void run_case(const struct http_case *c, size_t cut, size_t step)
{
    begin(on_request);
    struct sl_tcp *tcp = fake_connect();
    size_t at = 0;
    while (at < c->raw.len) {
        size_t end = cut < c->raw.len ? cut : c->raw.len;
        fake_send(tcp, (struct sl_span){c->raw.data + at, end - at});
        at = end;
        cut += step;
    }
    check_answer(c, tcp);
    finish(tcp);
}

TEST(each_case_is_answered_however_its_bytes_are_cut)
{
    for (size_t i = 0; i < HTTP_CASES; i++) {
        fprintf(stderr, "  %s\n", http_cases[i].name);
        run_case(&http_cases[i], http_cases[i].raw.len, 1);
        run_case(&http_cases[i], 1, 1);
        for (size_t cut = 1; cut < http_cases[i].raw.len; cut++) {
            run_case(&http_cases[i], cut, http_cases[i].raw.len);
        }
    }
}

static void check_headers(void *ctx, struct sl_http_exchange *exchange)
{
    (void)ctx;
    CHECK(sl_span_is(sl_http_request_header(exchange, "x-one"), "first"));
    CHECK(sl_span_is(sl_http_request_header(exchange, "X-TWO"), "a: b"));
    struct sl_span empty = sl_http_request_header(exchange, "x-empty");
    CHECK(empty.data != NULL && empty.len == 0);
    CHECK(sl_http_request_header(exchange, "x-on").data == NULL);
    CHECK(sl_http_request_header(exchange, "x-three").data == NULL);
    sl_http_body_release(exchange);
    CHECK_INT(sl_http_body(exchange).len, 0);
    CHECK(sl_span_is(sl_http_path(exchange), "/p"));
    sl_http_respond(exchange, 204, NULL, NULL, 0, SL_SPAN("left out"));
}

TEST(headers_are_found_by_name_and_trimmed)
{
    begin(check_headers);
    struct sl_tcp *tcp = fake_connect();
    fake_send(tcp, SL_SPAN("POST /p?q HTTP/1.1\r\nHost: a\r\nX-One:   first \t\r\nx-ONE: second\r\n"
                           "X-Two: a: b\r\nX-Empty:   \r\nContent-Length: 2\r\n\r\nhi"));
    CHECK(sl_span_is(sl_buf_span(&tcp->out), "HTTP/1.1 204 No Content\r\n\r\n"));
    CHECK(fake_open(tcp));
    finish(tcp);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"each_case_is_answered_however_its_bytes_are_cut",
         each_case_is_answered_however_its_bytes_are_cut},
        {"headers_are_found_by_name_and_trimmed", headers_are_found_by_name_and_trimmed},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
