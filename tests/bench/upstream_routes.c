/*
 * Which request is which call. A new endpoint is one line of the table. What fills or prepares a
 * store is answered at once with what Qdrant or OpenSearch say when all went well; nothing is kept.
 */
#include "upstream_server.h"

#include "common/json.h"

void upstream_put_error(struct sl_buf *body, const char *message)
{
    struct sl_json_writer w = {.out = body};
    sl_json_begin_object(&w);
    sl_json_key(&w, "error");
    sl_json_begin_object(&w);
    sl_json_key(&w, "message");
    sl_json_put_string(&w, sl_span_of(message));
    sl_json_end_object(&w);
    sl_json_end_object(&w);
}

static int get_stats(struct upstream_server *server, struct sl_span request_body,
                     struct sl_buf *body)
{
    (void)request_body;
    upstream_stats_write(&server->stats, server->connections, body);
    return 200;
}

static int reset_stats(struct upstream_server *server, struct sl_span request_body,
                       struct sl_buf *body)
{
    (void)request_body;
    upstream_stats_reset(&server->stats);
    sl_buf_append_text(body, "{}");
    return 200;
}

static int get_behaviour(struct upstream_server *server, struct sl_span request_body,
                         struct sl_buf *body)
{
    (void)request_body;
    upstream_behaviour_write(&server->behaviour, body);
    return 200;
}

static int put_behaviour(struct upstream_server *server, struct sl_span request_body,
                         struct sl_buf *body)
{
    struct upstream_behaviour changed = server->behaviour;
    struct upstream_answers *answers = NULL;
    char why[200];
    if (upstream_behaviour_apply(&changed, request_body, why, sizeof(why)) != 0) {
        upstream_put_error(body, why);
        return 400;
    }
    int rv = upstream_answers_create(&changed, &answers);
    if (rv != 0) {
        upstream_put_error(body, sl_error_text(rv));
        return 400;
    }
    upstream_answers_unref(server->answers);
    server->answers = answers;
    server->behaviour = changed;
    return get_behaviour(server, request_body, body);
}

static int get_collection(struct upstream_server *server, struct sl_span request_body,
                          struct sl_buf *body)
{
    (void)request_body;
    sl_buf_printf(body,
                  "{\"result\":{\"status\":\"green\",\"points_count\":1000,\"config\":{\"params\":"
                  "{\"vectors\":{\"size\":%u,\"distance\":\"Cosine\"}}}},\"status\":\"ok\","
                  "\"time\":0.0001}",
                  server->behaviour.dimensions);
    return 200;
}

#define POINTS_DONE                                                                                \
    "{\"result\":{\"operation_id\":1,\"status\":\"completed\"},\"status\":\"ok\",\"time\":0.0001}"
#define COLLECTION_DONE "{\"result\":true,\"status\":\"ok\",\"time\":0.0001}"
#define ACKNOWLEDGED "{\"acknowledged\":true,\"shards_acknowledged\":true}"
#define BULK_DONE "{\"took\":1,\"errors\":false,\"items\":[]}"
#define MODELS                                                                                     \
    "{\"object\":\"list\",\"data\":["                                                              \
    "{\"id\":\"stub-chat\",\"object\":\"model\",\"created\":0,\"owned_by\":\"stub\"},"             \
    "{\"id\":\"stub-embed\",\"object\":\"model\",\"created\":0,\"owned_by\":\"stub\"},"            \
    "{\"id\":\"stub-rerank\",\"object\":\"model\",\"created\":0,\"owned_by\":\"stub\"}]}"
#define OPENSEARCH                                                                                 \
    "{\"cluster_name\":\"stub\",\"version\":{\"distribution\":\"opensearch\","                     \
    "\"number\":\"2.11.0\"}}"

/* clang-format off */
static const struct upstream_route routes[] = {
    {"POST", "/v1/embeddings", UPSTREAM_EMBED, .read = upstream_read_embeddings},
    {"POST", "/v1/rerank", UPSTREAM_RERANK, .read = upstream_read_rerank},
    {"POST", "/v1/chat/completions", UPSTREAM_CHAT, .read = upstream_read_chat},
    {"POST", "/collections/*/points/query", UPSTREAM_VECTOR, .read = upstream_read_search},
    {"POST", "/*/_search", UPSTREAM_KEYWORD, .read = upstream_read_search},
    {"GET", "/v1/models", UPSTREAM_KINDS, .body = MODELS},
    {"GET", "/health", UPSTREAM_KINDS, .body = "{\"status\":\"ok\"}"},
    {"GET", "/stats", UPSTREAM_KINDS, .handle = get_stats},
    {"POST", "/stats/reset", UPSTREAM_KINDS, .handle = reset_stats},
    {"GET", "/behaviour", UPSTREAM_KINDS, .handle = get_behaviour},
    {"PUT", "/behaviour", UPSTREAM_KINDS, .handle = put_behaviour},
    {"GET", "/collections/*", UPSTREAM_KINDS, .handle = get_collection},
    {"PUT", "/collections/*/points", UPSTREAM_WRITE, .body = POINTS_DONE},
    {"POST", "/collections/*/points/delete", UPSTREAM_WRITE, .body = POINTS_DONE},
    {"PUT", "/collections/*/index", UPSTREAM_WRITE, .body = POINTS_DONE},
    {"PUT", "/collections/*", UPSTREAM_WRITE, .body = COLLECTION_DONE},
    {"DELETE", "/collections/*", UPSTREAM_WRITE, .body = COLLECTION_DONE},
    {"POST", "/_bulk", UPSTREAM_WRITE, .body = BULK_DONE},
    {"POST", "/*/_bulk", UPSTREAM_WRITE, .body = BULK_DONE},
    {"POST", "/*/_delete_by_query", UPSTREAM_WRITE, .body = "{\"deleted\":0,\"failures\":[]}"},
    {"POST", "/*/_refresh", UPSTREAM_WRITE, .body = "{\"_shards\":{\"failed\":0}}"},
    {"PUT", "/*", UPSTREAM_WRITE, .body = ACKNOWLEDGED},
    {"GET", "/", UPSTREAM_KINDS, .body = OPENSEARCH},
};
/* clang-format on */

static bool path_fits(const char *pattern, struct sl_span path)
{
    size_t at = 0;
    for (; *pattern != '\0'; pattern++) {
        if (*pattern != '*') {
            if (at == path.len || path.data[at] != *pattern) {
                return false;
            }
            at++;
            continue;
        }
        if (at == path.len || path.data[at] == '_' || path.data[at] == '/') {
            return false;
        }
        while (at < path.len && path.data[at] != '/') {
            at++;
        }
    }
    return at == path.len;
}

const struct upstream_route *upstream_route_find(struct sl_span method, struct sl_span path)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (sl_span_is(method, routes[i].method) && path_fits(routes[i].path, path)) {
            return &routes[i];
        }
    }
    return NULL;
}
