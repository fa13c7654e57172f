/*
 * What the gateway says to requests that never become a query: paths, methods, types, bodies and
 * fields, each with its status and OpenAI's error; and the endpoints that need no pipeline.
 */
#include "common/json.h"
#include "tests/support/gateway_fixture.h"

static struct peer peer;

static void begin(void)
{
    gateway_start(NULL);
    peer_open(&peer, gateway.port);
}

static void finish(void)
{
    peer_close(&peer);
    gateway_stop(0);
}

/* The body of the response that the peer has, once it is whole; NULL before. */
static const char *body_of(struct peer *of)
{
    peer_read(of);
    const char *head = peer_text(of), *end = strstr(head, "\r\n\r\n");
    const char *length = strstr(head, "content-length: ");
    size_t len = length != NULL ? strtoul(length + strlen("content-length: "), NULL, 10) : 0;
    return end != NULL && strlen(end + 4) >= len ? end + 4 : NULL;
}

static struct sl_json_doc *parse_body(void)
{
    struct sl_json_doc *doc;
    char why[128] = "";
    GATEWAY_WAIT(body_of(&peer) != NULL);
    if (sl_json_parse(sl_span_of(body_of(&peer)), &doc, why, sizeof(why)) != 0) {
        fprintf(stderr, "%s in:\n%s\n", why, peer_text(&peer));
        abort();
    }
    return doc;
}

static bool is_text(const struct sl_json *value, const char *text)
{
    return text == NULL ? value != NULL && sl_json_type(value) == SL_JSON_NULL
                        : value != NULL && sl_json_type(value) == SL_JSON_STRING &&
                              sl_span_is(sl_json_string(value), text);
}

/* One response with this status and an error with these members; param NULL: null. */
static void check_error(const char *what, int status, const char *code, const char *param)
{
    char line[32];
    struct sl_json_doc *doc = parse_body();
    const struct sl_json *error = sl_json_get(sl_json_root(doc), "error");
    snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
    bool names_body = strcmp(code, "invalid_json") != 0 ||
                      sl_span_begins(sl_json_string(sl_json_get(error, "message")), "the body ");
    bool good = names_body && peer_has(&peer, line) && is_text(sl_json_get(error, "code"), code) &&
                is_text(sl_json_get(error, "param"), param) &&
                is_text(sl_json_get(error, "type"),
                        status < 500 ? "invalid_request_error" : "server_error") &&
                sl_json_string(sl_json_get(error, "message")).len > 0 && sl_json_len(error) == 4 &&
                peer_has(&peer, "content-type: application/json\r\n") &&
                peer_has(&peer, "\r\nsluice-id: ") && peer_has(&peer, "\r\nx-request-id: ");
    if (!good) {
        fprintf(stderr, "%s: expected %d %s %s in\n%s\n", what, status, code,
                param != NULL ? param : "null", peer_text(&peer));
        abort();
    }
    sl_json_free(doc);
    sl_buf_clear(&peer.in);
}

#define A_65 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

TEST(paths_methods_and_types_are_checked_in_this_order)
{
    static const struct {
        const char *request;
        int status;
        const char *code, *param;
    } rows[] = {
        {"GET / HTTP/1.1\r\n", 404, "not_found", NULL},
        {"GET /v1/query/ HTTP/1.1\r\n", 404, "not_found", NULL},
        {"POST /v1/documents HTTP/1.1\r\n", 415, "unsupported_media_type", "content-type"},
        {"GET /v1/queries/some-id/more HTTP/1.1\r\n", 404, "not_found", NULL},
        {"DELETE /v1/queries/ HTTP/1.1\r\n", 404, "not_found", NULL},
        {"DELETE /v1/queries/no%20id HTTP/1.1\r\n", 400, "invalid_id", "id"},
        {"GET /v1/queries/f%c3%bcr HTTP/1.1\r\n", 400, "invalid_id", "id"},
        {"GET /v1/queries/" A_65 " HTTP/1.1\r\n", 400, "invalid_id", "id"},
        {"PUT /v1/queries/some-id HTTP/1.1\r\n", 405, "method_not_allowed", NULL},
        {"GET /v1/query HTTP/1.1\r\n", 405, "method_not_allowed", NULL},
        {"OPTIONS /v1/chat/completions HTTP/1.1\r\n", 405, "method_not_allowed", NULL},
        {"POST /v1/models HTTP/1.1\r\n", 405, "method_not_allowed", NULL},
        {"POST /v1/query HTTP/1.1\r\n", 415, "unsupported_media_type", "content-type"},
        {"POST /v1/query HTTP/1.1\r\nContent-Type: text/plain\r\n", 415, "unsupported_media_type",
         "content-type"},
        {"POST /v1/search?x=y HTTP/1.1\r\nContent-Type: Application/JSON ; charset=utf-8\r\n", 400,
         "invalid_json", NULL},
    };
    begin();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        peer_send_text(&peer, rows[i].request);
        peer_send_text(&peer, "Host: a\r\n\r\n");
        check_error(rows[i].request, rows[i].status, rows[i].code, rows[i].param);
    }
    peer_send_text(&peer, "PUT /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
    GATEWAY_WAIT(peer_has(&peer, "allow: GET, HEAD\r\n"));
    finish();
}

TEST(bodies_are_refused_by_field)
{
    static const struct {
        const char *path, *body;
        int status;
        const char *code, *param;
    } rows[] = {
        {"/v1/query", "{\"query\": }", 400, "invalid_json", NULL},
        {"/v1/query", "[1]", 400, "invalid_json", NULL},
        {"/v1/chat/completions", "{\"model\": }", 400, "invalid_json", NULL},
        {"/v1/chat/completions", "[1]", 400, "invalid_json", NULL},
        {"/v1/query", "{}", 400, "invalid_value", "query"},
        {"/v1/query", "{\"query\":\"\"}", 400, "invalid_value", "query"},
        {"/v1/query", "{\"query\":7}", 400, "invalid_value", "query"},
        {"/v1/query", "{\"query\":\"q\",\"tpo_n\":3}", 400, "invalid_value", "tpo_n"},
        {"/v1/query", "{\"query\":\"q\",\"extra\":\"{}\"}", 400, "invalid_value", "extra"},
        {"/v1/search", "{\"query\":\"q\",\"top_n\":51}", 400, "invalid_value", "top_n"},
        {"/v1/query", "{\"query\":\"q\",\"timeout_ms\":99}", 400, "invalid_value", "timeout_ms"},
        {"/v1/query", "{\"query\":\"q\",\"on_disconnect\":\"grace:0\"}", 400, "invalid_value",
         "on_disconnect"},
        {"/v1/query", "{\"query\":\"q\",\"model\":\"nope\"}", 404, "model_not_found", "model"},
        {"/v1/chat/completions", "{\"model\":\"sluice\"}", 400, "invalid_value", "messages"},
        {"/v1/chat/completions",
         "{\"model\":\"nope\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}", 404,
         "model_not_found", "model"},
        {"/v1/chat/completions",
         "{\"model\":\"sluice\",\"n\":2,\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}", 400,
         "invalid_value", "n"},
    };
    begin();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        gateway_post(&peer, rows[i].path, "", rows[i].body);
        check_error(rows[i].body, rows[i].status, rows[i].code, rows[i].param);
    }
    CHECK_INT(gateway.asked_count, 0);
    gateway_post(&peer, "/v1/query", "", "{\"query\": nope}");
    GATEWAY_WAIT(peer_has(&peer, "byte 10"));
    finish();
}

TEST(a_body_that_is_too_large_is_refused_unread)
{
    begin();
    peer_send_text(&peer, "POST /v1/query HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                          "Content-Length: 1048577\r\n\r\n");
    check_error("too large", 413, "request_too_large", NULL);
    finish();
}

TEST(what_is_no_http_is_answered_in_the_same_shape)
{
    begin();
    peer_send_text(&peer, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    check_error("two hosts", 400, "bad_http", NULL);
    finish();
}

TEST(the_callers_request_id_comes_back_if_it_is_sane)
{
    begin();
    peer_send_text(&peer, "GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Request-ID: abc-1\r\n\r\n");
    GATEWAY_WAIT(peer_has(&peer, "\r\nx-request-id: abc-1\r\n"));
    sl_buf_clear(&peer.in);
    peer_send_text(&peer, "GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Request-ID: a b\r\n\r\n");
    GATEWAY_WAIT(body_of(&peer) != NULL);
    CHECK(!peer_has(&peer, "a b") && peer_has(&peer, "\r\nx-request-id: 0"));
    finish();
}

TEST(the_models_are_listed)
{
    begin();
    peer_send_text(&peer, "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
    struct sl_json_doc *doc = parse_body();
    const struct sl_json *data = sl_json_get(sl_json_root(doc), "data"), *model;
    static const char *const names[] = {"sluice", "model-a", "model-b"};
    size_t at = 0, i = 0;
    CHECK_INT(sl_json_len(data), 3);
    while (sl_json_each(data, &at, NULL, &model)) {
        CHECK(is_text(sl_json_get(model, "id"), names[i++]));
    }
    sl_json_free(doc);
    finish();
}

TEST(a_model_is_found_by_its_name)
{
    begin();
    peer_send_text(&peer, "GET /v1/models/model%2Da HTTP/1.1\r\nHost: a\r\n\r\n");
    GATEWAY_WAIT(peer_has(&peer, "{\"id\":\"model-a\",\"object\":\"model\",\"created\":"));
    sl_buf_clear(&peer.in);
    peer_send_text(&peer, "GET /v1/models/org/other HTTP/1.1\r\nHost: a\r\n\r\n");
    GATEWAY_WAIT(peer_has(&peer, "The model 'org/other' does not exist"));
    check_error("no such model", 404, "model_not_found", "model");
    finish();
}

TEST(the_description_covers_every_path)
{
    static const char *const paths[] = {
        "/v1/query",          "/v1/search",       "/v1/chat/completions",
        "/v1/models",         "/v1/queries/{id}", "/v1/queries/{id}/events",
        "/openapi.json",      "/v1/models/{id}",  "/v1/documents",
        "/v1/documents/{id}", "/v1/ingests",      "/v1/ingests/{id}"};
    begin();
    peer_send_text(&peer, "GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n");
    struct sl_json_doc *doc = parse_body();
    const struct sl_json *root = sl_json_root(doc);
    CHECK(is_text(sl_json_get(root, "openapi"), "3.1.0"));
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        CHECK(sl_json_get(sl_json_get(root, "paths"), paths[i]) != NULL);
    }
    CHECK_INT(sl_json_len(sl_json_get(root, "paths")), sizeof(paths) / sizeof(paths[0]));
    sl_json_free(doc);
    finish();
}

TEST(requests_and_queries_are_counted)
{
    struct peer admin;
    begin();
    gateway_post(&peer, "/v1/query", "", "{\"query\":\"q\"}");
    struct asked *asked = gateway_asked(1);
    emit_delta(asked, 1, 0, 20, "one");
    emit_done(asked, 1, 1, 20);
    GATEWAY_WAIT(body_of(&peer) != NULL);
    sl_buf_clear(&peer.in);
    peer_send_text(&peer, "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
    GATEWAY_WAIT(body_of(&peer) != NULL);
    peer_open(&admin, gateway.admin_port);
    peer_send_text(&admin, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    GATEWAY_WAIT(body_of(&admin) != NULL);
    CHECK(peer_has(&admin, "sluice_jobs_total{stage=\"gateway\",outcome=\"done\"} 1\n"));
    CHECK(peer_has(&admin, "sluice_jobs_in_flight{stage=\"gateway\"} 0\n"));
    CHECK(peer_has(&admin, "sluice_http_requests_total{path=\"/v1/query\",status=\"200\"} 1\n"));
    CHECK(peer_has(&admin, "sluice_http_requests_total{path=\"other\",status=\"404\"} 1\n"));
    CHECK(peer_has(&admin, "sluice_ttft_seconds_count 1\n"));
    CHECK(peer_has(&admin, "sluice_query_seconds_count 1\n"));
    CHECK(peer_has(&admin, "sluice_overhead_seconds_count 1\n"));
    CHECK(peer_has(&admin, "sluice_condition_met{condition=\"kafka\"} 1\n"));
    CHECK(peer_has(&admin, "sluice_reply_lag_seconds_count 2\n"));
    peer_close(&admin);
    finish();
}

TEST(without_kafka_queries_are_to_be_tried_again)
{
    const char *const nowhere[] = {"SLUICE_KAFKA_BROKERS=127.0.0.1:1", NULL};
    struct peer admin;
    gateway_start(nowhere);
    peer_open(&peer, gateway.port);
    gateway_post(&peer, "/v1/query", "", "{\"query\":\"q\"}");
    GATEWAY_WAIT(peer_has(&peer, "\r\nretry-after: 1\r\n"));
    check_error("no kafka", 503, "overloaded", NULL);
    peer_open(&admin, gateway.admin_port);
    peer_send_text(&admin, "GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n");
    GATEWAY_WAIT(peer_has(&admin, "HTTP/1.1 503 ") && peer_has(&admin, "kafka"));
    peer_close(&admin);
    finish();
}

int main(int argc, char **argv)
{
#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
    static const struct test_case cases[] = {
        CASE(paths_methods_and_types_are_checked_in_this_order),
        CASE(bodies_are_refused_by_field),
        CASE(a_body_that_is_too_large_is_refused_unread),
        CASE(what_is_no_http_is_answered_in_the_same_shape),
        CASE(the_callers_request_id_comes_back_if_it_is_sane),
        CASE(the_models_are_listed),
        CASE(a_model_is_found_by_its_name),
        CASE(a_model_is_found_by_its_name),
        CASE(the_description_covers_every_path),
        CASE(requests_and_queries_are_counted),
        CASE(without_kafka_queries_are_to_be_tried_again),
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
