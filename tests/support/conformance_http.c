/* The stores over HTTP for the conformance suite: tests/support/qdrant.py, and a real OpenSearch.
 */
#include "tests/support/conformance.h"
#include "tests/support/python_server.h"

static struct python_server *qdrant;

static const char *start_qdrant(struct store_fixture *fixture)
{
    static char base[64];
    (void)fixture;
    qdrant = python_server_start("tests/support/qdrant.py", NULL);
    snprintf(base, sizeof(base), "qdrant+http://127.0.0.1:%d/", python_server_port(qdrant));
    return base;
}

static void stop_qdrant(void)
{
    python_server_stop(qdrant);
}

/* SLUICE_TEST_OPENSEARCH is its address, as tests/run starts it. */
static const char *start_opensearch(struct store_fixture *fixture)
{
    static char base[128];
    const char *url = getenv("SLUICE_TEST_OPENSEARCH");
    (void)fixture;
    if (url == NULL) {
        fprintf(stderr, "SLUICE_TEST_OPENSEARCH is not set: run this through tests/run, or set it "
                        "to the address of an OpenSearch (deploy/opensearch/serve --help)\n");
        exit(1);
    }
    snprintf(base, sizeof(base), "opensearch+%s/", url);
    return base;
}

/* The port of "SCHEME://host:port/NAME", and NAME. */
static int split(const char *url, const char **name)
{
    const char *port = strrchr(url, ':');
    *name = strrchr(url, '/') + 1;
    return atoi(port + 1);
}

static const char *vector_text(const float *vector, size_t dim)
{
    static char text[256];
    size_t at = 0;
    for (size_t i = 0; i < dim; i++) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%g", i > 0 ? "," : "",
                               (double)vector[i]);
    }
    return text;
}

static void put_raw_qdrant(const char *url, const char *text, const float *vector, size_t dim)
{
    char request[128];
    char body[512];
    const char *name = NULL;
    int port = split(url, &name);
    snprintf(request, sizeof(request), "PUT /collections/%s/points?wait=true", name);
    snprintf(body, sizeof(body),
             "{\"points\":[{\"id\":17,\"vector\":[%s],\"payload\":"
             "{\"doc_id\":\"raw\",\"text\":\"%s\"}}]}",
             vector_text(vector, dim), text);
    python_server_say(port, request, body);
}

static void put_raw_opensearch(const char *url, const char *text, const float *vector, size_t dim)
{
    char request[128];
    char body[512];
    const char *name = NULL;
    int port = split(url, &name);
    snprintf(request, sizeof(request), "PUT /%s/_doc/raw", name);
    snprintf(body, sizeof(body), "{\"doc_id\":\"raw\",\"text\":\"%s\",\"embedding\":[%s]}", text,
             vector_text(vector, dim));
    python_server_say(port, request, body);
}

const struct conformance_kind conformance_qdrant = {
    .name = "qdrant", .start = start_qdrant, .stop = stop_qdrant, .put_raw = put_raw_qdrant};
const struct conformance_kind conformance_opensearch = {.name = "opensearch",
                                                        .keyword = true,
                                                        .start = start_opensearch,
                                                        .put_raw = put_raw_opensearch};
