/*
 * Errors: one table of codes with a text and a class. Functions return 0 or -SL_E*; retry policy
 * and the outcome of a query read the class, never the code.
 */
#ifndef SLUICE_COMMON_ERROR_H
#define SLUICE_COMMON_ERROR_H

enum sl_class {
    SL_CLASS_GIVE_UP,   /* Trying again gives the same answer. */
    SL_CLASS_RETRY,     /* May succeed when tried again. */
    SL_CLASS_CANCELLED, /* The caller does not want it any more. */
    SL_CLASS_EXPIRED,   /* The deadline has passed. */
    SL_CLASS_OVERLOAD,  /* A limit of ours is reached; try again later. */
    SL_CLASS_BAD_INPUT, /* The input is wrong; it can never succeed. */
};

/* clang-format off */
#define SL_ERRORS(X)                                                                    \
    X(NOMEM,     OVERLOAD,  "out of memory")                                            \
    X(INVAL,     BAD_INPUT, "invalid value")                                            \
    X(BADMSG,    BAD_INPUT, "the bytes are not a valid message")                        \
    X(VERSION,   GIVE_UP,   "the message has a major version that is not known here")   \
    X(TOOBIG,    BAD_INPUT, "larger than the limit")                                    \
    X(AGAIN,     OVERLOAD,  "not now; try again when there is room")                    \
    X(NOENT,     GIVE_UP,   "does not exist")                                           \
    X(EXIST,     GIVE_UP,   "exists already")                                           \
    X(IO,        GIVE_UP,   "input or output failed")                                   \
    X(CONN,      RETRY,     "the connection failed")                                    \
    X(TIMEDOUT,  RETRY,     "timed out")                                                \
    X(UPSTREAM,  RETRY,     "the upstream reported an error of its own")                \
    X(RATE,      RETRY,     "the upstream asked to slow down")                          \
    X(REJECTED,  GIVE_UP,   "the upstream refused the request")                         \
    X(PROTO,     RETRY,     "the peer broke the protocol")                              \
    X(CUT,       GIVE_UP,   "the stream ended before its finish")                       \
    X(CANCELLED, CANCELLED, "cancelled")                                                \
    X(EXPIRED,   EXPIRED,   "the deadline has passed")                                  \
    X(LOST,      GIVE_UP,   "the worker that ran it was lost")                          \
    X(CLOSED,    GIVE_UP,   "closed")                                                   \
    X(INTERNAL,  GIVE_UP,   "internal error")
/* clang-format on */

enum sl_error {
    SL_OK = 0,
#define X(name, class, text) SL_E##name,
    SL_ERRORS(X)
#undef X
};

/* Both take 0 or -SL_E*. The text is static. */
const char *sl_error_text(int err);
const char *sl_error_name(int err); /* "TIMEDOUT" */
enum sl_class sl_error_class(int err);

#define SL_CHECKED __attribute__((warn_unused_result))

#endif
