/* The URL of a Redis server, taken apart. */
#ifndef SLUICE_COMMON_REDIS_URL_H
#define SLUICE_COMMON_REDIS_URL_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>

struct sl_redis_url {
    char host[256]; /* A name or an address, without brackets. */
    uint16_t port;
    int database;
    char user[256];      /* Empty: the default user. */
    char password[1024]; /* Empty: no AUTH. */
};

/* redis://[[user]:password@]host[:port][/database]; user and password may be percent-encoded.
 * 0, or -SL_EINVAL with one line in why, which never holds the password, and ret untouched. */
int sl_redis_url_parse(const char *text, struct sl_redis_url *ret, char *why,
                       size_t why_size) SL_CHECKED;

#endif
