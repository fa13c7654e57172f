/*
 * A server of tests/support that is written in Python, as a child of the test: started with `--port
 * 0 --with-parent`, it prints `listening PORT`, and ends with the test program, however that ends.
 * What fails here ends the program.
 */
#ifndef TESTS_SUPPORT_PYTHON_SERVER_H
#define TESTS_SUPPORT_PYTHON_SERVER_H

struct python_server;

/* more: further arguments, NULL at their end. Returns when it listens. */
struct python_server *python_server_start(const char *script, const char *const *more);
void python_server_stop(struct python_server *server); /* Takes NULL. */
int python_server_port(const struct python_server *server);

/* A request such as "POST /path", to any server on the loopback address, that waits for the answer;
 * checks that the status is 2xx and returns the body, static until the next request. json: "" for
 * none. */
const char *python_server_say(int port, const char *request, const char *json);

#endif
