/*
 * tests/support/upstream.py as a child of the test: models and stores that answer as they are told.
 * It ends with the test program, however that ends. What fails here ends the program.
 */
#ifndef TESTS_SUPPORT_UPSTREAM_FIXTURE_H
#define TESTS_SUPPORT_UPSTREAM_FIXTURE_H

struct upstream_fixture;

/* Of its vectors; returns when it listens. */
struct upstream_fixture *upstream_fixture_start(int dim);
void upstream_fixture_stop(struct upstream_fixture *fixture); /* Takes NULL. */
int upstream_fixture_port(const struct upstream_fixture *fixture);

/* A request to its control API (README.md), such as `POST /_control/documents`; as
 * python_server_say. */
const char *upstream_fixture_say(struct upstream_fixture *fixture, const char *request,
                                 const char *json);

#endif
