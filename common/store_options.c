/*
 * The stores as the environment names them. Searching and writing workers take the same variables,
 * so that one description of the stores serves them all.
 */
#include "common/store_options.h"

#include "common/worker.h"

#include <stdio.h>

#define AT(field) offsetof(struct sl_store_options, field)
static const char *const schemes[] = {"sqlite", "redis", "qdrant+http", "opensearch+http", NULL};

const struct sl_option sl_store_option_table[] = {
    {.name = "SLUICE_VECTOR_URL",
     .type = SL_OPT_URL,
     .offset = AT(vector_url),
     .choices = schemes,
     .help = "Store of the vector search: sqlite:///path, redis://host:6379/INDEX, "
             "qdrant+http://host:6333/COLLECTION or opensearch+http://host:9200/INDEX."},
    {.name = "SLUICE_KEYWORD_URL",
     .type = SL_OPT_URL,
     .offset = AT(keyword_url),
     .choices = schemes,
     .help = "Store of the keyword search, the same or another: sqlite:///path, "
             "redis://host:6379/INDEX or opensearch+http://host:9200/INDEX."},
    {.name = "SLUICE_SQLITE_VEC",
     .type = SL_OPT_STRING,
     .offset = AT(sqlite_vec),
     .fallback = "vec0",
     .help = "Path of the sqlite-vec extension, for sqlite:// stores."},
    {.name = "SLUICE_EMBED_DIMENSIONS",
     .type = SL_OPT_INT,
     .offset = AT(dim),
     .fallback = "0",
     .min = 0,
     .max = 32768,
     .help = "Numbers in a vector of the embedding model: a store that holds others is refused at "
             "the start. 0: as the first vector that is written."},
    {.name = "SLUICE_VECTOR_LIMIT",
     .type = SL_OPT_INT,
     .offset = AT(vector_limit),
     .fallback = "20",
     .min = 1,
     .max = 100000,
     .help = "Vector searches in flight at most, in the whole cluster."},
    {.name = "SLUICE_KEYWORD_LIMIT",
     .type = SL_OPT_INT,
     .offset = AT(keyword_limit),
     .fallback = "20",
     .min = 1,
     .max = 100000,
     .help = "Keyword searches in flight at most, in the whole cluster."},
    {.name = "SLUICE_OPENSEARCH_ANALYZER",
     .type = SL_OPT_STRING,
     .offset = AT(analyzer),
     .fallback = "english",
     .help = "Analyzer of the words in an OpenSearch index that is made here, one of OpenSearch's "
             "own, such as english or standard. An index keeps the one it was made with."},
    {.name = NULL},
};

static const char *const names[SL_STORE_ROLES] = {"VECTOR", "KEYWORD"};

size_t sl_store_limits(const struct sl_store_options *options, struct sl_limit ret[SL_STORE_ROLES])
{
    const long long limits[SL_STORE_ROLES] = {options->vector_limit, options->keyword_limit};
    for (size_t i = 0; i < SL_STORE_ROLES; i++) {
        ret[i] = (struct sl_limit){.name = names[i], .limit = (uint32_t)limits[i]};
    }
    return SL_STORE_ROLES;
}

int sl_store_open_role(struct sl_worker *worker, const struct sl_store_options *options,
                       enum sl_store_role role, long long timeout_ms, struct sl_store **ret,
                       char *why, size_t why_size)
{
    const char *const urls[SL_STORE_ROLES] = {options->vector_url, options->keyword_url};
    const struct sl_store_env env = {
        .loop = sl_worker_loop(worker),
        .http = sl_worker_http(worker),
        .coord = sl_worker_coord(worker),
        .metrics = sl_worker_metrics(worker),
        .limit_name = names[role],
        .sqlite_vec_path = options->sqlite_vec,
        .dim = options->dim,
        .write = options->write,
        .timeout_ms = timeout_ms,
        .analyzer = options->analyzer,
    };
    char reason[200] = "";
    int rv = sl_store_open(urls[role], &env, ret, reason, sizeof(reason));
    if (rv != 0) {
        snprintf(why, why_size, "SLUICE_%s_URL: %s", names[role], reason);
    }
    return rv;
}
