/*
 * The connections of a load. One thread, non-blocking sockets on one epoll; connections are kept
 * alive and some are opened ahead of need, so that a request finds one that is ready.
 */
#ifndef TESTS_BENCH_LOAD_CLIENT_H
#define TESTS_BENCH_LOAD_CLIENT_H

#include "tests/bench/load_request.h"
#include "tests/bench/measure_run.h"

struct load_client;

/* Raises the limit of descriptors to what --max-open needs. Where that is not allowed, lowers
 * max_open to what is. 0, or -1 after a line on stderr: not even --streams would fit. */
int load_client_allow(struct measure_options *options);

/* Opens the first connections and waits until they are there. request and options are borrowed.
 * NULL after a line on stderr that says what failed: memory, the server. SIGTERM and
 * SIGINT must be blocked: they end load_client_run(). */
struct load_client *load_client_create(struct load_request *request,
                                       const struct measure_options *options);
void load_client_destroy(struct load_client *client); /* Closes all. Takes NULL. */

/* Sends what is due and reads answers until the run is over: 0; or -1 after a line on stderr. With
 * SIGTERM or SIGINT it returns at once: requests that are open are then neither answered nor
 * failed. */
int load_client_run(struct load_client *client, struct measure_run *run);

#endif
