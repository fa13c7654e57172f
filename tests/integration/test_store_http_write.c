/* Writes to stores over HTTP: which requests make an index and fill it, and what is done about
 * answers of every kind, from a server that plays OpenSearch and Qdrant by a list of replies. That
 * the real ones understand the requests is shown by the conformance suite. */
#include "tests/support/alloc_fail.h"
#include "tests/support/http_script.h"
#include "tests/support/soon.h"
#include "tests/support/store_fixture.h"

#include <pthread.h>

enum { DIM = 2, LOG_MAX = 4096 };

static struct store_fixture fixture;
static struct http_script *script;
static const float vectors[2 * DIM] = {1, 0, 0, 1};

/* --- the server --- */

struct reply {
    const char *begins; /* The request: "PUT /chunks". NULL: the end of the list. */
    int status;
    const char *body;
    int times; /* So often; 0: always. */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const struct reply *replies;
static int used[16];
static char requests[LOG_MAX];     /* Method and path of each, with newlines between. */
static char last_request[1 << 16]; /* Whole. */
static int hang_at;                /* The k-th request is not answered; 0: all are. */
static int count;

static const struct reply *choose(const char *request)
{
    for (size_t i = 0; replies[i].begins != NULL; i++) {
        size_t len = strlen(replies[i].begins);
        if (strncmp(request, replies[i].begins, len) == 0 &&
            (request[len] == ' ' || request[len] == '?') &&
            (replies[i].times == 0 || used[i] < replies[i].times)) {
            used[i]++;
            return &replies[i];
        }
    }
    return NULL;
}

static bool note(const struct http_script_conn *conn, struct reply *ret)
{
    pthread_mutex_lock(&mutex);
    const struct reply *reply = choose(conn->request);
    const char *space = strchr(conn->request, ' ');
    size_t len = strcspn(space + 1, "? ") + (size_t)(space + 1 - conn->request);
    snprintf(requests + strlen(requests), sizeof(requests) - strlen(requests), "%.*s\n", (int)len,
             conn->request);
    snprintf(last_request, sizeof(last_request), "%s", conn->request);
    bool answered = ++count != hang_at;
    *ret = reply != NULL ? *reply : (struct reply){.status = 500, .body = "{}"};
    pthread_mutex_unlock(&mutex);
    return answered;
}

static void answer(struct http_script_conn *conn)
{
    struct reply reply;
    char head[128];
    while (http_script_read(conn)) {
        if (!note(conn, &reply)) {
            http_script_await_close(conn);
            return;
        }
        snprintf(head, sizeof(head), "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n\r\n", reply.status,
                 strlen(reply.body));
        http_script_send(conn, head);
        http_script_send(conn, reply.body);
    }
}

static void serve(const struct reply *list)
{
    pthread_mutex_lock(&mutex);
    replies = list;
    memset(used, 0, sizeof(used));
    requests[0] = '\0';
    count = hang_at = 0;
    pthread_mutex_unlock(&mutex);
}

static void start(void)
{
    store_fixture_start(&fixture);
    script = http_script_start(answer);
}

static void stop(void)
{
    http_script_stop(script);
    store_fixture_stop(&fixture);
}

static int try_open(const char *scheme, const char *name, bool write, long long dim,
                    struct sl_store **ret, char *why, size_t why_size)
{
    struct sl_store_env env = store_fixture_env(&fixture);
    char url[128];
    env.write = write;
    env.dim = dim;
    snprintf(url, sizeof(url), "%s://127.0.0.1:%d/%s", scheme, http_script_port(script), name);
    return sl_store_open(url, &env, ret, why, why_size);
}

static struct sl_store *open_to_write(const char *scheme)
{
    struct sl_store *store = NULL;
    char why[300] = "";
    int rv = try_open(scheme, "chunks", true, 0, &store, why, sizeof(why));
    CHECK_STR(why, "");
    CHECK_INT(rv, 0);
    return store;
}

static struct sl_batch two_chunks(void)
{
    static struct sl_span texts[] = {{"one", 3}, {"two", 3}};
    return store_batch("d", texts, 2, vectors, DIM);
}

static struct store_end write_two(struct sl_store *store)
{
    const struct sl_batch batch = two_chunks();
    return store_write(&fixture, store, &batch);
}

static struct store_end delete_document(struct sl_store *store)
{
    const struct sl_batch batch = two_chunks();
    return store_delete_below(&fixture, store, &batch, 7);
}

/* --- what servers say --- */

#define KEYWORD "{\"type\":\"keyword\"}"
#define FIELDS(more)                                                                               \
    "{\"chunks\":{\"mappings\":{\"properties\":{\"tenant\":" KEYWORD ",\"collection\":" KEYWORD    \
    ",\"doc_id\":" KEYWORD ",\"chunk_id\":" KEYWORD ",\"chunk_index\":{\"type\":\"integer\"},"     \
    "\"version\":{\"type\":\"long\"},\"metadata\":{\"type\":\"flat_object\"},"                     \
    "\"text\":{\"type\":\"text\"}" more "}}}}"
#define VECTOR(dim) ",\"embedding\":{\"type\":\"knn_vector\",\"dimension\":" dim "}"
#define WHOLE FIELDS(VECTOR("2"))
#define NO_INDEX "{\"error\":{\"type\":\"index_not_found_exception\",\"reason\":\"no such index\"}}"
#define ITEM(status) "{\"index\":{\"status\":" status "}}"
#define REFUSED(status, reason)                                                                    \
    "{\"index\":{\"status\":" status ",\"error\":{\"type\":\"x\",\"reason\":\"" reason "\"}}}"
#define BULK(errors, items) "{\"errors\":" errors ",\"items\":[" items "]}"
#define WRITTEN BULK("false", ITEM("201") "," ITEM("200"))
#define DELETED(conflicts, failures)                                                               \
    "{\"deleted\":1,\"version_conflicts\":" conflicts ",\"failures\":[" failures "]}"
#define REFRESHED                                                                                  \
    {                                                                                              \
        "POST /chunks/_refresh", 200, "{}", 0                                                      \
    }

static const struct reply nothing_there[] = {
    {"GET /chunks/_mapping", 404, NO_INDEX, 1},
    {"PUT /chunks", 200, "{}", 1},
    {"GET /chunks/_mapping", 200, FIELDS(""), 1},
    {"PUT /chunks/_mapping", 200, "{}", 1},
    {"GET /chunks/_mapping", 200, WHOLE, 0},
    {"POST /chunks/_bulk", 200, WRITTEN, 0},
    REFRESHED,
    {"POST /chunks/_delete_by_query", 200, DELETED("0", ""), 0},
    {NULL, 0, NULL, 0},
};

static const struct reply all_there[] = {
    {"GET /chunks/_mapping", 200, WHOLE, 0},
    {"POST /chunks/_bulk", 200, WRITTEN, 0},
    REFRESHED,
    {"POST /chunks/_delete_by_query", 200, DELETED("0", ""), 0},
    {NULL, 0, NULL, 0},
};

#define COLLECTION(schema)                                                                         \
    "{\"result\":{\"config\":{\"params\":{\"vectors\":{\"size\":2,\"distance\":\"Cosine\"}}},"     \
    "\"payload_schema\":{" schema "}},\"status\":\"ok\"}"
#define NO_COLLECTION                                                                              \
    "{\"status\":{\"error\":\"Not found: Collection `chunks` doesn't exist!\"},\"time\":0.1}"
#define COMPLETED "{\"result\":{\"operation_id\":1,\"status\":\"completed\"},\"status\":\"ok\"}"
#define INDEXED(name) "\"" name "\":{\"data_type\":\"keyword\"}"

/* --- making --- */

TEST(an_index_is_made_when_opened_and_gets_its_vectors_with_the_first_chunks)
{
    start();
    serve(nothing_there);
    struct sl_store *store = open_to_write("opensearch+http");
    CHECK_STR(requests, "GET /chunks/_mapping\nPUT /chunks\nGET /chunks/_mapping\n");
    CHECK_INT(sl_store_dim(store), 0);
    struct store_end end = write_two(store);
    CHECK_STR(end.detail, "");
    CHECK_STR(requests + 54, "PUT /chunks/_mapping\nGET /chunks/_mapping\nPOST /chunks/_bulk\n");
    CHECK_INT(sl_store_dim(store), DIM);
    CHECK_INT(write_two(store).err, 0);
    CHECK(strstr(requests, "POST /chunks/_bulk\nPOST /chunks/_bulk\n") != NULL);
    CHECK(strstr(last_request, "\"version\":1,") != NULL);
    sl_store_close(store);
    stop();
}

TEST(a_collection_is_made_with_its_indexes_when_the_length_is_known)
{
    static const struct reply list[] = {
        {"GET /collections/chunks", 404, NO_COLLECTION, 1},
        {"PUT /collections/chunks", 200, "{\"result\":true}", 1},
        {"GET /collections/chunks", 200, COLLECTION(INDEXED("tenant") "," INDEXED("collection")),
         1},
        {"PUT /collections/chunks/index", 200, COMPLETED, 0},
        {"GET /collections/chunks", 200,
         COLLECTION(INDEXED("tenant") "," INDEXED("collection") "," INDEXED("doc_id")), 1},
        {"GET /collections/chunks", 200,
         COLLECTION(INDEXED("tenant") "," INDEXED("collection") "," INDEXED("doc_id") "," INDEXED(
             "version")),
         0},
        {"PUT /collections/chunks/points", 200, COMPLETED, 0},
        {NULL, 0, NULL, 0},
    };
    start();
    serve(list);
    struct sl_store *store = open_to_write("qdrant+http");
    CHECK_STR(requests, "GET /collections/chunks\n");
    CHECK_INT(write_two(store).err, 0);
    CHECK(strstr(requests, "PUT /collections/chunks\nGET /collections/chunks\n"
                           "PUT /collections/chunks/index\nGET /collections/chunks\n"
                           "PUT /collections/chunks/index\nGET /collections/chunks\n"
                           "PUT /collections/chunks/points\n") != NULL);
    CHECK_INT(sl_store_dim(store), DIM);
    sl_store_close(store);
    stop();
}

TEST(a_server_that_is_away_at_the_start_is_asked_again_before_the_first_write)
{
    static const struct reply away[] = {{"GET /chunks/_mapping", 503, "{}", 0}, {NULL, 0, NULL, 0}};
    start();
    serve(away);
    struct sl_store *store = open_to_write("opensearch+http");
    CHECK_INT(write_two(store).err, -SL_EUPSTREAM);
    serve(nothing_there);
    struct store_end end = write_two(store);
    CHECK_STR(end.detail, "");
    CHECK(strstr(requests, "PUT /chunks\n") != NULL && strstr(requests, "_bulk") != NULL);
    sl_store_close(store);
    stop();
}

TEST(an_index_that_another_process_makes_first_is_taken)
{
    static const struct reply list[] = {
        {"GET /chunks/_mapping", 404, NO_INDEX, 1},
        {"PUT /chunks", 400, "{\"error\":{\"reason\":\"index [chunks/1] already exists\"}}", 1},
        {"GET /chunks/_mapping", 200, WHOLE, 0},
        {NULL, 0, NULL, 0},
    };
    start();
    serve(list);
    struct sl_store *store = open_to_write("opensearch+http");
    CHECK_INT(sl_store_dim(store), DIM);
    sl_store_close(store);
    stop();
}

/* Opened for writing; what the refusal says. */
static void check_refused(const char *scheme, const char *name, long long dim, const char *path,
                          int status, const char *body, const char *says)
{
    const struct reply list[] = {{path, status, body, 0}, {NULL, 0, NULL, 0}};
    struct sl_store *store = NULL;
    char why[300] = "";
    serve(list);
    int rv = try_open(scheme, name, true, dim, &store, why, sizeof(why));
    if (strstr(why, says) == NULL) {
        CHECK_STR(why, says);
    }
    CHECK(rv == -SL_EINVAL || rv == -SL_EIO);
}

TEST(an_index_that_cannot_hold_chunks_is_refused_for_writing_with_the_reason)
{
    static const struct {
        const char *name, *mapping, *says;
    } cases[] = {
        {"chunks", "{\"x\":{\"mappings\":{\"properties\":{\"tenant\":{\"type\":\"text\"}}}}}",
         "its field tenant is of the type text, and must be of the type keyword"},
        {"chunks", "{\"x\":{\"mappings\":{\"properties\":{\"version\":{\"type\":\"keyword\"}}}}}",
         "its field version is of the type keyword"},
        {"chunks", "{\"x\":{\"mappings\":{\"properties\":{\"metadata\":{\"type\":\"text\"}}}}}",
         "its field metadata"},
        {"chunks", FIELDS(",\"embedding\":{\"type\":\"float\"}"), "knn_vector with a dimension"},
        {"chunks", FIELDS(",\"embedding\":{\"type\":\"knn_vector\",\"model_id\":\"m\"}"),
         "knn_vector with a dimension"},
        {"chunks", "{\"a\":{\"mappings\":{}},\"b\":{\"mappings\":{}}}", "several indexes"},
        {"chunks*", "{}", "stands for several"},
        {"chunks", "{\"a\":{}}", "an index without mappings"},
        {"chunks", "[]", "no object of indexes"},
        {"chunks", "<html>", "cannot be used"},
    };
    start();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[64];
        snprintf(path, sizeof(path), "GET /%s/_mapping", cases[i].name);
        check_refused("opensearch+http", cases[i].name, 0, path, 200, cases[i].mapping,
                      cases[i].says);
    }
    check_refused("opensearch+http", "chunks", 384, "GET /chunks/_mapping", 200, WHOLE,
                  "the store holds vectors of 2 numbers, this one has 384");
    check_refused("opensearch+http", "chunks", 0, "GET /chunks/_mapping", 401, "Unauthorized",
                  "it answers 401: Unauthorized");
    check_refused("qdrant+http", "chunks", 3, "GET /collections/chunks", 200, COLLECTION(""),
                  "the store holds vectors of 2 numbers, this one has 3");
    check_refused("qdrant+http", "chunks", 0, "GET /collections/chunks", 200,
                  "{\"result\":{\"config\":{\"params\":{\"vectors\":{\"a\":{\"size\":2}}}}}}",
                  "no unnamed vector");
    check_refused("qdrant+http", "chunks", 0, "GET /collections/chunks", 200, "{\"result\":7}",
                  "result.config.params");
    stop();
}

TEST(a_foreign_index_is_searched_and_its_length_checked_when_it_is_told)
{
    static const struct reply list[] = {
        {"GET /chunks/_mapping", 200,
         "{\"x\":{\"mappings\":{\"properties\":{\"tenant\":{\"type\":\"text\"}" VECTOR("2") "}}}}",
         0},
        {"POST /chunks/_search", 200, "{\"hits\":{\"hits\":[]}}", 0},
        {NULL, 0, NULL, 0},
    };
    struct sl_store *store = NULL;
    char why[300] = "";
    start();
    serve(list);
    CHECK_INT(try_open("opensearch+http", "chunks", false, 3, &store, why, sizeof(why)),
              -SL_EINVAL);
    CHECK_INT(try_open("opensearch+http", "chunks", false, DIM, &store, why, sizeof(why)), 0);
    struct sl_store_search search = store_search_vector(&fixture, vectors, DIM);
    CHECK_INT(store_find(&fixture, store, &search).err, 0);
    struct store_end end = write_two(store);
    CHECK_INT(end.err, -SL_EINVAL);
    CHECK(strstr(end.detail, "its field tenant") != NULL);
    end = delete_document(store);
    CHECK_INT(end.err, -SL_EINVAL);
    CHECK(strstr(requests, "_bulk") == NULL && strstr(requests, "_delete") == NULL);
    sl_store_close(store);
    stop();
}

TEST(what_the_server_says_against_making_an_index_is_told)
{
    static const struct reply list[] = {
        {"GET /chunks/_mapping", 404, NO_INDEX, 0},
        {"PUT /chunks", 400, "{\"error\":{\"reason\":\"too many shards\"}}", 0},
        {NULL, 0, NULL, 0},
    };
    struct sl_store *store = NULL;
    char why[300] = "";
    start();
    serve(list);
    CHECK_INT(try_open("opensearch+http", "chunks", true, 0, &store, why, sizeof(why)), -SL_EINVAL);
    CHECK(strstr(why, "too many shards") != NULL);
    stop();
}

/* --- answers --- */

TEST(chunks_that_are_refused_are_told_by_whether_they_may_be_taken_later)
{
    static const struct {
        const char *body;
        int err;
        const char *says;
    } cases[] = {
        {WRITTEN, 0, ""},
        {BULK("true", ITEM("201") "," REFUSED("429", "queue is full")), -SL_ERATE,
         "1 of 2 chunks were refused: queue is full"},
        {BULK("true", REFUSED("503", "no shard") "," REFUSED("429", "queue")), -SL_EUPSTREAM,
         "2 of 2 chunks were refused: no shard"},
        {BULK("true", REFUSED("429", "queue") "," REFUSED("400", "immense term")), -SL_EREJECTED,
         "immense term"},
        {BULK("true", REFUSED("404", "no such index") "," ITEM("201")), -SL_EUPSTREAM, "no such"},
        {BULK("true", "{\"index\":{\"status\":400,\"error\":{\"reason\":\"outer\",\"caused_by\":"
                      "{\"reason\":\"inner\"}}}}," ITEM("201")),
         -SL_EREJECTED, "inner"},
        {BULK("true", "{\"index\":{}}," ITEM("201")), -SL_EREJECTED, "no reason given"},
        {BULK("false", ITEM("201")), -SL_EPROTO, "not an item for each chunk"},
        {BULK("7", ITEM("201") "," ITEM("201")), -SL_EPROTO, "no errors"},
        {"{}", -SL_EPROTO, "no errors"},
        {"[", -SL_EPROTO, ""},
    };
    start();
    serve(all_there);
    struct sl_store *store = open_to_write("opensearch+http");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct reply list[] = {{"GET /chunks/_mapping", 200, WHOLE, 0},
                                     {"POST /chunks/_bulk", 200, cases[i].body, 0},
                                     {NULL, 0, NULL, 0}};
        serve(list);
        struct store_end end = write_two(store);
        if (strstr(end.detail, cases[i].says) == NULL) {
            CHECK_STR(end.detail, cases[i].says);
        }
        CHECK_INT(end.err, cases[i].err);
    }
    sl_store_close(store);
    stop();
}

TEST(a_deletion_is_repeated_while_chunks_change_under_it)
{
    static const struct {
        const char *first, *then;
        int err, deletions;
    } cases[] = {
        {DELETED("0", ""), DELETED("0", ""), 0, 1},
        {DELETED("2", ""), DELETED("0", ""), 0, 2},
        {DELETED("2", ""), DELETED("2", ""), -SL_EAGAIN, 5},
        {DELETED("0", "{\"status\":429}"), "", -SL_ERATE, 1},
        {DELETED("0", "{\"status\":500},{\"status\":429}"), "", -SL_EUPSTREAM, 1},
        {"{\"deleted\":1}", "", -SL_EPROTO, 1},
        {"{\"timed_out\":true,\"version_conflicts\":0,\"failures\":[]}", DELETED("0", ""), 0, 2},
    };
    start();
    serve(all_there);
    struct sl_store *store = open_to_write("opensearch+http");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct reply list[] = {{"POST /chunks/_delete_by_query", 200, cases[i].first, 1},
                                     {"POST /chunks/_delete_by_query", 200, cases[i].then, 0},
                                     REFRESHED,
                                     {NULL, 0, NULL, 0}};
        serve(list);
        CHECK_INT(delete_document(store).err, cases[i].err);
        CHECK_INT(used[0] + used[1], cases[i].deletions);
        CHECK_INT(used[2], cases[i].deletions);
    }
    sl_store_close(store);
    stop();
}

TEST(nothing_is_deleted_from_what_is_not_there)
{
    static const struct reply no_index[] = {{"GET /chunks/_mapping", 404, NO_INDEX, 0},
                                            {"POST /chunks/_refresh", 404, NO_INDEX, 0},
                                            {NULL, 0, NULL, 0}};
    static const struct reply no_collection[] = {{"GET /collections/chunks", 404, NO_COLLECTION, 0},
                                                 {NULL, 0, NULL, 0}};
    start();
    serve(all_there);
    struct sl_store *store = open_to_write("opensearch+http");
    serve(no_index);
    CHECK_INT(delete_document(store).err, 0); /* It vanished. */
    CHECK_INT(delete_document(store).err, 0); /* And is known not to be there. */
    CHECK_STR(requests, "POST /chunks/_refresh\nGET /chunks/_mapping\n");
    sl_store_close(store);
    serve(no_collection);
    store = open_to_write("qdrant+http");
    CHECK_INT(delete_document(store).err, 0);
    sl_store_close(store);
    stop();
}

TEST(an_index_that_vanished_is_made_again_by_the_next_try)
{
    static const struct reply gone[] = {{"POST /chunks/_bulk", 404, NO_INDEX, 0},
                                        {NULL, 0, NULL, 0}};
    start();
    serve(all_there);
    struct sl_store *store = open_to_write("opensearch+http");
    CHECK_INT(write_two(store).err, 0);
    serve(gone);
    CHECK_INT(write_two(store).err, -SL_EUPSTREAM);
    serve(nothing_there);
    CHECK_INT(write_two(store).err, 0);
    CHECK(strstr(requests, "PUT /chunks\n") != NULL);
    sl_store_close(store);
    stop();
}

/* OpenSearch makes what it was told of chunks, where it may: without the types that searches need.
 */
TEST(an_index_that_the_server_made_by_itself_is_not_taken_for_ours)
{
    static const char guessed[] =
        "{\"chunks\":{\"mappings\":{\"properties\":{\"tenant\":{\"type\":\"text\"}}}}}";
    static const char first[] = BULK("false", "{\"index\":{\"status\":201,\"_seq_no\":0}}"
                                              "," ITEM("201"));
    static const struct reply made_itself[] = {{"POST /chunks/_bulk", 200, first, 0},
                                               {"GET /chunks/_mapping", 200, guessed, 0},
                                               {NULL, 0, NULL, 0}};
    static const struct reply ours[] = {{"POST /chunks/_bulk", 200, first, 0},
                                        {"GET /chunks/_mapping", 200, WHOLE, 0},
                                        {NULL, 0, NULL, 0}};
    start();
    serve(all_there);
    struct sl_store *store = open_to_write("opensearch+http");
    CHECK_INT(write_two(store).err, 0);
    serve(made_itself);
    struct store_end end = write_two(store);
    CHECK_INT(end.err, -SL_EINVAL);
    CHECK(strstr(end.detail, "its field tenant is of the type text") != NULL);
    CHECK_INT(write_two(store).err, -SL_EINVAL); /* Looked at again, and nothing is sent. */
    serve(ours);                                 /* Somebody made it as it must be. */
    CHECK_INT(write_two(store).err, 0);
    serve(all_there);
    CHECK_INT(write_two(store).err, 0);
    sl_store_close(store);
    stop();
}

TEST(a_batch_that_an_index_took_with_it_is_written_again)
{
    static const char first[] = BULK("false", "{\"index\":{\"status\":201,\"_seq_no\":0}}"
                                              "," ITEM("201"));
    static const struct reply gone[] = {{"POST /chunks/_bulk", 200, first, 0},
                                        {"GET /chunks/_mapping", 404, NO_INDEX, 0},
                                        {NULL, 0, NULL, 0}};
    start();
    serve(all_there);
    struct sl_store *store = open_to_write("opensearch+http");
    CHECK_INT(write_two(store).err, 0);
    serve(gone);
    CHECK_INT(write_two(store).err, -SL_EUPSTREAM);
    serve(nothing_there);
    CHECK_INT(write_two(store).err, 0);
    CHECK(strstr(requests, "PUT /chunks\n") != NULL);
    sl_store_close(store);
    stop();
}

TEST(another_length_is_looked_up_before_it_is_refused)
{
    static const struct reply longer[] = {{"GET /chunks/_mapping", 200, FIELDS(VECTOR("3")), 0},
                                          {"POST /chunks/_bulk", 200, WRITTEN, 0},
                                          {NULL, 0, NULL, 0}};
    const float wide[2 * 3] = {1, 0, 0, 0, 0, 1};
    start();
    serve(all_there);
    struct sl_store *store = open_to_write("opensearch+http");
    struct sl_batch batch = two_chunks();
    batch.vectors = wide;
    batch.dim = 3;
    struct store_end end = store_write(&fixture, store, &batch);
    CHECK_INT(end.err, -SL_EINVAL);
    CHECK_STR(end.detail, "the store holds vectors of 2 numbers, this one has 3: it comes from "
                          "another embedding model");
    serve(longer); /* Somebody has made it again. */
    CHECK_INT(store_write(&fixture, store, &batch).err, 0);
    CHECK_INT(write_two(store).err, -SL_EINVAL);
    sl_store_close(store);
    stop();
}

TEST(a_search_before_anything_is_stored_finds_nothing)
{
    static const struct reply no_index[] = {{"POST /chunks/_search", 404, NO_INDEX, 0},
                                            {NULL, 0, NULL, 0}};
    static const struct reply other[] = {{"POST /chunks/_search", 404, "{\"detail\":\"?\"}", 0},
                                         {NULL, 0, NULL, 0}};
    static const struct reply no_vectors[] = {
        {"POST /chunks/_search", 400, "{\"error\":{\"reason\":\"is not knn_vector type\"}}", 0},
        {"GET /chunks/_mapping", 200, FIELDS(""), 0},
        {NULL, 0, NULL, 0}};
    static const struct reply foreign[] = {
        {"POST /chunks/_search", 400, "{\"error\":{\"reason\":\"is not knn_vector type\"}}", 0},
        {"GET /chunks/_mapping", 200, "{\"x\":{\"mappings\":{}}}", 0},
        {NULL, 0, NULL, 0}};
    static const struct {
        const struct reply *list;
        int err;
    } cases[] = {{no_index, 0}, {other, -SL_EREJECTED}, {no_vectors, 0}, {foreign, -SL_EREJECTED}};
    start();
    serve(all_there);
    struct sl_store *store = open_to_write("opensearch+http");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sl_store_search search = store_search_vector(&fixture, vectors, DIM);
        serve(cases[i].list);
        struct store_end end = store_find(&fixture, store, &search);
        CHECK_INT(end.err, cases[i].err);
        CHECK_INT(end.len, 0);
    }
    sl_store_close(store);
    stop();
}

/* --- how calls end --- */

static struct sl_store_call *start_write(struct sl_store *store, bool upsert, struct store_end *end)
{
    const struct sl_batch batch = two_chunks();
    struct sl_store_call *call = NULL;
    int64_t deadline_ms = sl_coord_now_ms(fixture.coord) + 20000;
    *end = (struct store_end){.calls = 0};
    CHECK_INT(upsert
                  ? sl_store_upsert(store, &batch, deadline_ms, store_on_done, end, &call)
                  : sl_store_delete_below(store, &batch, 7, deadline_ms, store_on_done, end, &call),
              0);
    return call;
}

static bool has_come(int number)
{
    pthread_mutex_lock(&mutex);
    bool come = count >= number;
    pthread_mutex_unlock(&mutex);
    return come;
}

TEST(a_write_can_be_cancelled_at_each_of_its_requests)
{
    enum { STEPS = 5 };
    start();
    for (int step = 1; step <= STEPS; step++) {
        struct store_end end;
        static const struct reply away[] = {{"GET /chunks/_mapping", 503, "{}", 0},
                                            {NULL, 0, NULL, 0}};
        serve(away);
        struct sl_store *store = open_to_write("opensearch+http");
        serve(nothing_there);
        hang_at = step;
        bool upsert = step <= 3;
        int closed = http_script_peer_closed(script);
        struct sl_store_call *call = start_write(store, upsert, &end);
        if (!upsert) { /* GET, refresh and deletion of an index that is there. */
            serve(all_there);
            hang_at = step - 2;
        }
        SOON(fixture.cluster.loop, has_come(hang_at));
        sl_store_cancel(call);
        CHECK_INT(sl_permit_held(fixture.coord, LIMIT_CHAT), 0);
        SOON(fixture.cluster.loop, http_script_peer_closed(script) == closed + 1);
        CHECK_INT(end.calls, 0);
        sl_store_close(store);
    }
    stop();
}

TEST(a_write_that_cannot_be_started_for_want_of_memory_is_not_started)
{
    bool failed = true;
    start();
    serve(all_there);
    struct sl_store *store = open_to_write("opensearch+http");
    for (int i = 0; i < 2; i++) {
        failed = true;
        for (long k = 1; failed; k++) {
            const struct sl_batch batch = two_chunks();
            struct store_end end = {.calls = 0};
            struct sl_store_call *call = NULL;
            int64_t deadline_ms = sl_coord_now_ms(fixture.coord) + 20000;
            sl_test_fail_alloc(k);
            int rv = i == 0
                         ? sl_store_upsert(store, &batch, deadline_ms, store_on_done, &end, &call)
                         : sl_store_delete_below(store, &batch, 7, deadline_ms, store_on_done, &end,
                                                 &call);
            failed = sl_test_alloc_failed();
            CHECK(rv == 0 || (failed && rv == -SL_ENOMEM));
            if (rv == 0) {
                SOON(fixture.cluster.loop, end.calls == 1);
                CHECK_INT(end.err, 0);
            }
        }
    }
    sl_store_close(store);
    stop();
}

TEST(more_writes_than_have_room_are_told_to_come_again)
{
    enum { MANY = 65 };
    static struct store_end ends[MANY];
    struct sl_store_call *call = NULL;
    const struct sl_batch batch = two_chunks();
    start();
    serve(all_there);
    struct sl_store *store = open_to_write("opensearch+http");
    int64_t deadline_ms = sl_coord_now_ms(fixture.coord) + 20000;
    for (int i = 0; i < MANY; i++) {
        CHECK_INT(sl_store_upsert(store, &batch, deadline_ms, store_on_done, &ends[i], &call),
                  i < MANY - 1 ? 0 : -SL_EAGAIN);
    }
    for (int i = 0; i < MANY - 1; i++) {
        SOON(fixture.cluster.loop, ends[i].calls == 1);
        CHECK_INT(ends[i].err, 0);
    }
    sl_store_close(store);
    stop();
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }
static const struct test_case cases[] = {
    CASE(an_index_is_made_when_opened_and_gets_its_vectors_with_the_first_chunks),
    CASE(a_collection_is_made_with_its_indexes_when_the_length_is_known),
    CASE(a_server_that_is_away_at_the_start_is_asked_again_before_the_first_write),
    CASE(an_index_that_another_process_makes_first_is_taken),
    CASE(an_index_that_cannot_hold_chunks_is_refused_for_writing_with_the_reason),
    CASE(a_foreign_index_is_searched_and_its_length_checked_when_it_is_told),
    CASE(what_the_server_says_against_making_an_index_is_told),
    CASE(chunks_that_are_refused_are_told_by_whether_they_may_be_taken_later),
    CASE(a_deletion_is_repeated_while_chunks_change_under_it),
    CASE(nothing_is_deleted_from_what_is_not_there),
    CASE(an_index_that_vanished_is_made_again_by_the_next_try),
    CASE(an_index_that_the_server_made_by_itself_is_not_taken_for_ours),
    CASE(a_batch_that_an_index_took_with_it_is_written_again),
    CASE(another_length_is_looked_up_before_it_is_refused),
    CASE(a_search_before_anything_is_stored_finds_nothing),
    CASE(a_write_can_be_cancelled_at_each_of_its_requests),
    CASE(a_write_that_cannot_be_started_for_want_of_memory_is_not_started),
    CASE(more_writes_than_have_room_are_told_to_come_again),
    {NULL, NULL},
};

int main(int argc, char **argv)
{
    return run_tests(cases, argc, argv);
}
