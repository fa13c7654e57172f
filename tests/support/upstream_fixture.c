/* See upstream_fixture.h. */
#include "tests/support/upstream_fixture.h"

#include "tests/support/python_server.h"
#include "tests/support/test.h"

struct upstream_fixture {
    struct python_server *server;
};

struct upstream_fixture *upstream_fixture_start(int dim)
{
    struct upstream_fixture *fixture = calloc(1, sizeof(*fixture));
    char text[16];
    const char *const more[] = {"--dim", text, NULL};
    CHECK(fixture != NULL);
    snprintf(text, sizeof(text), "%d", dim);
    fixture->server = python_server_start("tests/support/upstream.py", more);
    return fixture;
}

void upstream_fixture_stop(struct upstream_fixture *fixture)
{
    if (fixture != NULL) {
        python_server_stop(fixture->server);
        free(fixture);
    }
}

int upstream_fixture_port(const struct upstream_fixture *fixture)
{
    return python_server_port(fixture->server);
}

const char *upstream_fixture_say(struct upstream_fixture *fixture, const char *request,
                                 const char *json)
{
    return python_server_say(upstream_fixture_port(fixture), request, json);
}
