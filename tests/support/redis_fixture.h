/*
 * A redis-server of a test's own: on loopback, in a temporary directory, without persistence unless
 * asked for. It dies with the test program, however that ends. What fails here ends the program.
 */
#ifndef TESTS_SUPPORT_REDIS_FIXTURE_H
#define TESTS_SUPPORT_REDIS_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>

struct redis_fixture;

struct redis_fixture_options {
    const char *password; /* NULL: none. */
    bool appendonly;      /* Each write is on disk before its reply: a kill loses nothing. */
    const char *policy;   /* maxmemory-policy; NULL: noeviction. */
    bool query_engine;    /* With FT.SEARCH: the server that deploy/setup --tests installs. */
};

/* Chooses the port and the directory; starts nothing. options may be NULL. */
struct redis_fixture *redis_fixture_create(const struct redis_fixture_options *options);
void redis_fixture_destroy(struct redis_fixture *fixture); /* Kills it. Takes NULL. */

/* Also after stop and kill, on the same port. Returns when it answers, within 10 s. */
void redis_fixture_start(struct redis_fixture *fixture);
void redis_fixture_stop(struct redis_fixture *fixture); /* SIGTERM; returns when it has ended. */
void redis_fixture_kill(struct redis_fixture *fixture); /* SIGKILL; the same. */
void redis_fixture_pause(struct redis_fixture *fixture);
void redis_fixture_resume(struct redis_fixture *fixture);

struct sl_span;
/* One command to the server on this port, on a connection of its own; an error ends the program. */
void redis_say(int port, size_t argc, const struct sl_span *argv);

int redis_fixture_port(const struct redis_fixture *fixture);
/* With the right password. The fixture's. */
const char *redis_fixture_url(const struct redis_fixture *fixture);

#endif
