/* The stores over HTTP: that Qdrant's and OpenSearch's languages are spoken (to a server that
 * evaluates the queries), and what is done about answers of every kind. */
#include "tests/support/http_script.h"
#include "tests/support/soon.h"
#include "tests/support/store_fixture.h"
#include "tests/support/upstream_fixture.h"

#include <math.h>

enum { DIM = 4 };

static struct store_fixture fixture;
static struct upstream_fixture *server;
static const float east[DIM] = {1, 0, 0, 0};

/* Chunks 0 to 8; tenant and collection are missing in some. */
static const char documents[] =
    "{\"documents\": ["
    "{\"tenant\":\"default\",\"collection\":\"default\",\"doc_id\":\"a\",\"chunk_id\":\"a_0\","
    "\"chunk_index\":0,\"version\":3,\"text\":\"lease one\",\"embedding\":[1,0,0,0],"
    "\"metadata\":{\"lang\":\"en\",\"year\":2024,\"draft\":true}},"
    "{\"tenant\":\"default\",\"collection\":\"default\",\"doc_id\":\"a\",\"chunk_id\":null,"
    "\"chunk_index\":7,\"text\":\"lease two more\",\"embedding\":[0.8,0.6,0,0],"
    "\"metadata\":{\"lang\":\"de\",\"year\":2024}},"
    "{\"tenant\":null,\"collection\":null,\"doc_id\":\"old\",\"chunk_id\":\"old_0\","
    "\"chunk_index\":0,\"text\":\"lease three of "
    "them\",\"embedding\":[0.6,0.8,0,0],\"metadata\":null},"
    "{\"tenant\":\"acme\",\"collection\":\"default\",\"doc_id\":\"a\",\"chunk_id\":\"a_0\","
    "\"chunk_index\":0,\"text\":\"lease of acme\",\"embedding\":[1,0,0,0],\"metadata\":{}},"
    "{\"tenant\":\"acme corp\",\"collection\":\"default\",\"doc_id\":\"a\",\"chunk_id\":\"a_0\","
    "\"chunk_index\":0,\"text\":\"lease of corp\",\"embedding\":[1,0,0,0],\"metadata\":{}},"
    "{\"tenant\":\"default\",\"collection\":\"other\",\"doc_id\":\"x\",\"chunk_id\":\"x_0\","
    "\"chunk_index\":0,\"text\":\"lease elsewhere\",\"embedding\":[1,0,0,0],\"metadata\":{}}"
    "], \"append\": false}";

static struct sl_store *open_at(const char *scheme, int port)
{
    char url[128];
    snprintf(url, sizeof(url), "%s://127.0.0.1:%d/chunks", scheme, port);
    return store_fixture_open(&fixture, url);
}

static const char *ids(struct store_end end)
{
    static char text[1024];
    size_t at = 0;
    text[0] = '\0';
    for (size_t i = 0; i < end.len; i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s" SL_SPAN_FMT, i > 0 ? " " : "",
                               SL_SPAN_ARG(end.hits[i].chunk_id));
        CHECK(at < sizeof(text));
    }
    return text;
}

/* --- speaking --- */

static void check_search(struct sl_store *store, const struct sl_store_search *search,
                         const char *expected)
{
    struct store_end end = store_find(&fixture, store, search);
    CHECK_STR(end.detail, "");
    CHECK_INT(end.err, 0);
    CHECK_STR(ids(end), expected);
}

static void check_filters(struct sl_store *store, struct sl_store_search search)
{
    static const struct {
        const char *key, *value, *expected;
    } cases[] = {
        {"lang", "de", "a_7"},   {"year", "2024", "a_0 a_7"}, {"draft", "true", "a_0"},
        {"draft", "1", ""},      {"lang", "fr", ""},          {"nothing", "x", ""},
        {"odd \"'.[]", "x", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct sl_pair pair = {sl_span_of(cases[i].key), sl_span_of(cases[i].value)};
        search.scope.filter = &pair;
        search.scope.filter_len = 1;
        check_search(store, &search, cases[i].expected);
    }
    const struct sl_pair both[] = {{SL_SPAN("lang"), SL_SPAN("en")},
                                   {SL_SPAN("year"), SL_SPAN("2024")}};
    search.scope.filter = both;
    search.scope.filter_len = 2;
    check_search(store, &search, "a_0");
}

static void check_store(struct sl_store *store, struct sl_store_search search)
{
    CHECK(sl_store_writable(store));
    check_search(store, &search, "a_0 a_7 old_0");
    struct store_end end = store_find(&fixture, store, &search);
    CHECK(sl_span_is(end.hits[0].doc_id, "a") && sl_span_is(end.hits[0].text, "lease one"));
    CHECK_INT(end.hits[0].version, 3);
    CHECK_INT(end.hits[1].chunk_index, 7);
    CHECK(sl_span_is(end.hits[1].metadata, "{\"lang\":\"de\",\"year\":2024}"));
    CHECK(end.hits[2].metadata.len == 0);
    CHECK(end.hits[0].score >= end.hits[1].score && end.hits[1].score >= end.hits[2].score);
    check_filters(store, search);
    search.scope.tenant = SL_SPAN("acme");
    check_search(store, &search, "a_0");
    end = store_find(&fixture, store, &search);
    CHECK(sl_span_is(end.hits[0].text, "lease of acme"));
    search.scope.tenant = SL_SPAN("default");
    search.scope.collection = SL_SPAN("other");
    check_search(store, &search, "x_0");
    search.scope.collection = SL_SPAN("default");
    search.top_k = 1;
    check_search(store, &search, "a_0");
}

static void start_server(void)
{
    store_fixture_start(&fixture);
    server = upstream_fixture_start(DIM);
    upstream_fixture_say(server, "POST /_control/documents", documents);
}

static void stop_server(struct sl_store *store)
{
    sl_store_close(store);
    upstream_fixture_stop(server);
    store_fixture_stop(&fixture);
}

TEST(qdrant_is_searched_by_vector)
{
    start_server();
    struct sl_store *store = open_at("qdrant+http", upstream_fixture_port(server));
    check_store(store, store_search_vector(&fixture, east, DIM));
    stop_server(store);
}

TEST(opensearch_is_searched_by_vector)
{
    start_server();
    struct sl_store *store = open_at("opensearch+http", upstream_fixture_port(server));
    check_store(store, store_search_vector(&fixture, east, DIM));
    stop_server(store);
}

TEST(opensearch_is_searched_by_words)
{
    start_server();
    struct sl_store *store = open_at("opensearch+http", upstream_fixture_port(server));
    struct sl_store_search search = store_search_text(&fixture, "lease");
    check_store(store, search);
    search.text = SL_SPAN("two \"quoted\\ \x01 AND (");
    check_search(store, &search, "a_7");
    search.text = SL_SPAN("?!");
    check_search(store, &search, "");
    stop_server(store);
}

TEST(a_failed_call_is_repeated_once)
{
    start_server();
    struct sl_store *store = open_at("qdrant+http", upstream_fixture_port(server));
    struct sl_store_search search = store_search_vector(&fixture, east, DIM);
    upstream_fixture_say(server, "POST /_control/behaviour",
                         "{\"vector\": {\"error_status\": 500, \"fail_times\": 1}}");
    check_search(store, &search, "a_0 a_7 old_0");
    upstream_fixture_say(server, "POST /_control/behaviour",
                         "{\"vector\": {\"error_status\": 500}}");
    struct store_end end = store_find(&fixture, store, &search);
    CHECK_INT(end.err, -SL_EUPSTREAM);
    CHECK(strstr(upstream_fixture_say(server, "GET /_control/stats?events=0", ""),
                 "\"calls\": 4") != NULL);
    stop_server(store);
}

TEST(a_hanging_store_is_left_at_the_deadline_and_a_cancelled_call_closes)
{
    struct store_end end;
    start_server();
    struct sl_store *store = open_at("qdrant+http", upstream_fixture_port(server));
    struct sl_store_search search = store_search_vector(&fixture, east, DIM);
    upstream_fixture_say(server, "POST /_control/behaviour", "{\"vector\": {\"hang\": true}}");
    search.deadline_ms = sl_coord_now_ms(fixture.coord) + 100;
    end = store_find(&fixture, store, &search);
    CHECK_INT(end.err, -SL_EEXPIRED);
    search = store_search_vector(&fixture, east, DIM);
    struct sl_store_call *call = store_start(store, &search, &end);
    SOON(fixture.cluster.loop,
         strstr(upstream_fixture_say(server, "GET /_control/stats?events=0", ""),
                "\"in_flight\": 1") != NULL);
    sl_store_cancel(call);
    CHECK_INT(sl_permit_held(fixture.coord, LIMIT_CHAT), 0);
    SOON(fixture.cluster.loop,
         strstr(upstream_fixture_say(server, "GET /_control/stats?events=0", ""),
                "\"aborted\": 2") != NULL);
    CHECK_INT(end.calls, 0);
    stop_server(store);
}

/* --- answers of every kind --- */

static const char *scripted;

static void answer(struct http_script_conn *conn)
{
    char head[128];
    while (http_script_read(conn)) {
        snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
                 strlen(scripted));
        http_script_send(conn, head);
        http_script_send(conn, scripted);
    }
}

struct answer_case {
    const char *body;
    int err;
    const char *expected; /* Ids, or what the detail says. */
};

static void check_answers(const char *scheme, const struct answer_case *cases)
{
    store_fixture_start(&fixture);
    struct http_script *script = http_script_start(answer);
    struct sl_store *store = open_at(scheme, http_script_port(script));
    for (size_t i = 0; cases[i].body != NULL; i++) {
        scripted = cases[i].body;
        struct sl_store_search search = store_search_vector(&fixture, east, DIM);
        struct store_end end = store_find(&fixture, store, &search);
        if (end.err != cases[i].err) {
            fprintf(stderr, "%s: %s\n", scripted, end.detail);
        }
        CHECK_INT(end.err, cases[i].err);
        if (end.err == 0) {
            CHECK_STR(ids(end), cases[i].expected);
        } else if (strstr(end.detail, cases[i].expected) == NULL) {
            CHECK_STR(end.detail, cases[i].expected);
        }
    }
    sl_store_close(store);
    http_script_stop(script);
    store_fixture_stop(&fixture);
}

#define POINTS(points) "{\"result\":{\"points\":[" points "]}}"
#define HITS(hits) "{\"hits\":{\"hits\":[" hits "]}}"

TEST(answers_of_qdrant_are_read_strictly_but_need_few_fields)
{
    static const struct answer_case answers[] = {
        {POINTS(""), 0, ""},
        {POINTS("{\"id\":17,\"score\":0.5,\"payload\":{\"text\":\"t\"}}"), 0, "17_0"},
        {POINTS("{\"id\":\"u-1\",\"score\":1,\"payload\":{\"text\":\"t\",\"chunk_index\":2}}"), 0,
         "u-1_2"},
        {POINTS("{\"id\":1,\"score\":1,\"payload\":{\"text\":\"t\",\"doc_id\":\"d\","
                "\"metadata\":[1]}}"),
         0, "d_0"},
        {POINTS("{\"id\":1,\"score\":1,\"payload\":{\"text\":\"t\",\"tenant\":\"acme\"}}"), 0, ""},
        {POINTS("{\"id\":1,\"score\":1,\"payload\":{\"text\":\"t\",\"tenant\":[\"default\"]}}"), 0,
         ""},
        {POINTS("{\"id\":1,\"score\":1,\"payload\":{}}"), -SL_EPROTO, "payload.text"},
        {POINTS("{\"id\":1,\"score\":1}"), -SL_EPROTO, "payload.text"},
        {POINTS("{\"id\":1,\"payload\":{\"text\":\"t\"}}"), -SL_EPROTO, "score"},
        {POINTS("{\"score\":1,\"payload\":{\"text\":\"t\"}}"), -SL_EPROTO, "id"},
        {POINTS("7"), -SL_EPROTO, "payload.text"},
        {"{\"result\":{\"points\":{}}}", -SL_EPROTO, "result.points"},
        {"{\"status\":\"ok\"}", -SL_EPROTO, "result.points"},
        {"[]", -SL_EPROTO, "result.points"},
        {"{\"result\":", -SL_EPROTO, "cannot be used"},
        {"", -SL_EPROTO, "cannot be used"},
        {NULL, 0, NULL},
    };
    check_answers("qdrant+http", answers);
}

TEST(answers_of_opensearch_are_read_strictly_but_need_few_fields)
{
    static const struct answer_case answers[] = {
        {HITS(""), 0, ""},
        {HITS("{\"_id\":\"x\",\"_score\":1.5,\"_source\":{\"text\":\"t\"}}"), 0, "x_0"},
        {HITS("{\"_id\":\"x\",\"_score\":null,\"_source\":{\"text\":\"t\"}}"), -SL_EPROTO,
         "_score"},
        {HITS("{\"_id\":\"x\",\"_score\":1}"), -SL_EPROTO, "_source.text"},
        {"{\"_shards\":{\"failed\":1},\"hits\":{\"hits\":[]}}", -SL_EPROTO, "1 shards failed"},
        {"{\"hits\":{}}", -SL_EPROTO, "hits.hits"},
        {NULL, 0, NULL},
    };
    check_answers("opensearch+http", answers);
}

TEST(hits_that_a_loose_index_finds_besides_are_left_out)
{
    store_fixture_start(&fixture);
    struct http_script *script = http_script_start(answer);
    struct sl_store *store = open_at("opensearch+http", http_script_port(script));
    struct sl_store_search search = store_search_text(&fixture, "words");
    const struct sl_pair pair = {SL_SPAN("city"), SL_SPAN("york")};
    search.scope.tenant = SL_SPAN("acme");
    search.scope.filter = &pair;
    search.scope.filter_len = 1;
#define HIT(id, tenant, city)                                                                      \
    "{\"_id\":\"" id "\",\"_score\":1,\"_source\":{\"text\":\"t\",\"tenant\":\"" tenant            \
    "\",\"metadata\":{\"city\":\"" city "\"}}}"
    scripted = HITS(HIT("a", "acme", "new york") "," HIT("b", "acme", "york") "," HIT(
        "c", "acme corp", "york") ",{\"_id\":\"d\",\"_score\":1,\"_source\":{\"text\":\"t\"}}");
    check_search(store, &search, "b_0");
    sl_store_close(store);
    http_script_stop(script);
    store_fixture_stop(&fixture);
}

/* --- opening --- */

TEST(addresses_and_searches_that_cannot_work_are_refused)
{
    static const char *const urls[] = {
        "qdrant+http://127.0.0.1:6333",         "qdrant+http://127.0.0.1:6333/",
        "qdrant+http://127.0.0.1:6333/a b",     "opensearch+http:///chunks",
        "opensearch+http://127.0.0.1/a?pretty", "opensearch+ftp://127.0.0.1/a",
    };
    char why[300];
    struct sl_store *store = NULL;
    store_fixture_start(&fixture);
    struct sl_store_env env = store_fixture_env(&fixture);
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        why[0] = '\0';
        CHECK_INT(sl_store_open(urls[i], &env, &store, why, sizeof(why)), -SL_EINVAL);
        CHECK(why[0] != '\0');
    }
    env.limit_name = "KEYWORD";
    CHECK_INT(sl_store_open("qdrant+http://127.0.0.1:6333/chunks", &env, &store, why, sizeof(why)),
              -SL_EINVAL);
    CHECK(strstr(why, "by vector only") != NULL);

    struct store_end end = {.calls = 0};
    struct sl_store_call *call = NULL;
    store = open_at("qdrant+http", 1);
    struct sl_store_search search = store_search_text(&fixture, "words");
    CHECK_INT(sl_store_search(store, &search, store_on_hits, &end, &call), -SL_EINVAL);
    const float infinite[DIM] = {INFINITY};
    search = store_search_vector(&fixture, infinite, DIM);
    CHECK_INT(sl_store_search(store, &search, store_on_hits, &end, &call), -SL_EINVAL);
    const float none[DIM] = {0};
    search = store_search_vector(&fixture, none, DIM);
    CHECK_INT(sl_store_search(store, &search, store_on_hits, &end, &call), -SL_EINVAL);
    struct sl_batch batch = store_batch("d", NULL, 0, NULL, 0); /* Words alone, for a Qdrant. */
    CHECK_INT(sl_store_upsert(store, &batch, 0, store_on_done, &end, &call), -SL_EINVAL);
    search = store_search_vector(&fixture, east, DIM);
    CHECK_INT(store_find(&fixture, store, &search).err, -SL_ECONN);
    sl_store_close(store);
    store_fixture_stop(&fixture);
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
static const struct test_case cases[] = {
    CASE(qdrant_is_searched_by_vector),
    CASE(opensearch_is_searched_by_vector),
    CASE(opensearch_is_searched_by_words),
    CASE(a_failed_call_is_repeated_once),
    CASE(a_hanging_store_is_left_at_the_deadline_and_a_cancelled_call_closes),
    CASE(answers_of_qdrant_are_read_strictly_but_need_few_fields),
    CASE(answers_of_opensearch_are_read_strictly_but_need_few_fields),
    CASE(hits_that_a_loose_index_finds_besides_are_left_out),
    CASE(addresses_and_searches_that_cannot_work_are_refused),
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
