/* The kind redis of conformance.h: a server with the Query Engine, of each case's own. */
#include "tests/support/conformance.h"

static struct redis_fixture *query_engine;

static const char *start_redis(struct store_fixture *fixture)
{
    static char base[256];
    (void)fixture;
    query_engine = redis_fixture_create(&(struct redis_fixture_options){.query_engine = true});
    redis_fixture_start(query_engine);
    snprintf(base, sizeof(base), "%s/", redis_fixture_url(query_engine));
    return base;
}

static void stop_redis(void)
{
    redis_fixture_destroy(query_engine);
    query_engine = NULL;
}

static void put_raw_redis(const char *url, const char *text, const float *vector, size_t dim)
{
    const char *name = strrchr(url, '/') + 1;
    char key[128];
    snprintf(key, sizeof(key), "%s:raw", name);
    const struct sl_span argv[] = {
        SL_SPAN("HSET"),      sl_span_of(key),
        SL_SPAN("doc_id"),    SL_SPAN("raw"),
        SL_SPAN("text"),      sl_span_of(text),
        SL_SPAN("embedding"), {(const char *)vector, dim * sizeof(*vector)}};
    redis_say(atoi(strrchr(url, ':') + 1), sizeof(argv) / sizeof(argv[0]), argv);
}

const struct conformance_kind conformance_redis = {.name = "redis",
                                                   .keyword = true,
                                                   .start = start_redis,
                                                   .stop = stop_redis,
                                                   .put_raw = put_raw_redis};
