/*
 * The server as a whole: it listens, hands each connection to http_server.c up to its limit and
 * refuses the others with 503, drains and ends.
 *
 * Draining stops listening and closes what is idle; a connection that has begun to send a request
 * may finish it and is answered with `Connection: close`. A server that is destroyed while
 * exchanges are open tells each of them (on_gone) before its connection closes.
 */
#include "common/http_server_internal.h"

#include <stdio.h>
#include <stdlib.h>

static void on_accept(void *ctx, struct sl_tcp *tcp)
{
    struct sl_http_server *server = ctx;
    if (server->connection_count >= server->config.max_connections) {
        if (sl_http_refuse(server, tcp, true, 503, "too many connections") == 0) {
            sl_tcp_close_after_write(tcp, SL_HTTP_LINGER_MS);
        } else {
            sl_tcp_destroy(tcp);
        }
        return;
    }
    sl_http_connection_open(server, tcp);
}

int sl_http_server_create(struct sl_loop *loop, const struct sl_http_server_config *config,
                          const struct sl_http_server_callbacks *callbacks, void *ctx,
                          struct sl_http_server **ret, char *why, size_t why_size)
{
    struct sl_http_server *server = calloc(1, sizeof(*server));
    if (server == NULL) {
        snprintf(why, why_size, "%s", sl_error_text(-SL_ENOMEM));
        return -SL_ENOMEM;
    }
    server->loop = loop;
    server->config = *config;
    server->config.address = NULL; /* Borrowed for the next call only. */
    server->callbacks = *callbacks;
    server->ctx = ctx;
    sl_list_init(&server->connections);
    sl_buf_init(&server->scratch, 64 * 1024);
    int err =
        sl_tcp_listen(loop, config->address, on_accept, server, &server->listener, why, why_size);
    if (err != 0) {
        free(server);
        return err;
    }
    *ret = server;
    return 0;
}

int sl_http_server_port(const struct sl_http_server *server)
{
    return sl_tcp_listener_port(server->listener);
}

size_t sl_http_server_connections(const struct sl_http_server *server)
{
    return server->connection_count;
}

void sl_http_server_drain(struct sl_http_server *server)
{
    server->draining = true;
    sl_tcp_listener_stop(server->listener);
    SL_LIST_EACH_SAFE(node, &server->connections)
    {
        struct sl_http_exchange *exchange = SL_ITEM(node, struct sl_http_exchange, node);
        if (exchange->phase == SL_HTTP_IDLE) {
            sl_http_connection_close(exchange);
        }
    }
}

void sl_http_server_destroy(struct sl_http_server *server)
{
    struct sl_list *node;
    if (server == NULL) {
        return;
    }
    while ((node = sl_list_first(&server->connections)) != NULL) {
        sl_http_connection_close(SL_ITEM(node, struct sl_http_exchange, node));
    }
    sl_tcp_listener_destroy(server->listener);
    sl_buf_fini(&server->scratch);
    free(server);
}
