/*
 * The Redis scripts of common/lua, each as a C string; see redis.h for how they run. Each script's
 * own head says what it takes, what it answers and why.
 */
#ifndef SLUICE_COMMON_LUA_SCRIPTS_H
#define SLUICE_COMMON_LUA_SCRIPTS_H

extern const char sl_lua_prelude[];    /* In front of each of the others. */
extern const char sl_lua_admit[];      /* Claims jobs and takes permits. */
extern const char sl_lua_settle[];     /* Gives them back, stores endings, cancels. */
extern const char sl_lua_renew[];      /* Renews leases and claims. */
extern const char sl_lua_beat[];       /* The heartbeat, and a look at parked jobs. */
extern const char sl_lua_look[];       /* What is known of a query. */
extern const char sl_lua_idempotent[]; /* Who has an idempotency key. */

/* Without the prelude. */
extern const char sl_lua_ingest_account[]; /* Documents and runs, as workers count them. */
extern const char sl_lua_ingest_visible[]; /* Which hits can be found. */
extern const char sl_lua_ingest_read[];    /* The same, for gateway and command line. */

#endif
