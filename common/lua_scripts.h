/* The Redis scripts of common/lua, each as a C string; see redis.h for how they run. */
#ifndef SLUICE_COMMON_LUA_SCRIPTS_H
#define SLUICE_COMMON_LUA_SCRIPTS_H

/* Claims jobs and takes permits; its own head says what it takes and answers. */
extern const char sl_lua_admit[];

#endif
