/*
 * An epoll instance of its own that nobody waits for: the kernel notes there what has become ready,
 * and a timer of the loop asks for it. A worker that reads a hundred streams of tokens, each with a
 * token every 30 ms, is woken a hundred times a second this way instead of three thousand times,
 * and what it reads together goes on together.
 *
 * A look takes what is ready in slices; between two of them the loop serves whatever else came, so
 * that a thousand streams do not hold up the one whose first token is due. The more descriptors,
 * the longer the wait for the next look: then the several pieces of one stream are one read, and
 * one record, one write and one wake-up for everyone behind.
 *
 * What can go wrong: an owner removes entries inside on_ready, others of the same slice among them:
 * those are struck from the slice. The descriptor of a removed entry may have failed; epoll_ctl's
 * error is then nobody's loss.
 */
#include "common/relaxed.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { LOOK_MS = 10, LOOK_MAX_MS = 50, FEW = 200, SLICE = 64 };

struct sl_relaxed {
    struct sl_loop *loop;
    struct sl_timer timer;
    int epoll;
    size_t count;
    size_t at, len; /* Of the slice that is being served. */
    struct epoll_event slice[SLICE];
};

static void on_look(struct sl_timer *timer);

static void plan(struct sl_relaxed *relaxed, bool more)
{
    uint64_t wait_ms = LOOK_MS * relaxed->count / FEW;
    wait_ms = wait_ms < LOOK_MS ? LOOK_MS : wait_ms > LOOK_MAX_MS ? LOOK_MAX_MS : wait_ms;
    if (relaxed->count > 0) {
        sl_timer_start(relaxed->loop, &relaxed->timer, more ? 0 : wait_ms, on_look);
    }
}

static void on_look(struct sl_timer *timer)
{
    struct sl_relaxed *relaxed = SL_ITEM(timer, struct sl_relaxed, timer);
    int ready = epoll_wait(relaxed->epoll, relaxed->slice, SLICE, 0);
    relaxed->len = ready > 0 ? (size_t)ready : 0;
    for (relaxed->at = 0; relaxed->at < relaxed->len; relaxed->at++) {
        struct sl_relaxed_entry *entry = relaxed->slice[relaxed->at].data.ptr;
        if (entry != NULL) {
            entry->on_ready(entry);
        }
    }
    relaxed->at = relaxed->len = 0;
    plan(relaxed, ready == SLICE);
}

int sl_relaxed_create(struct sl_loop *loop, struct sl_relaxed **ret)
{
    struct sl_relaxed *relaxed = calloc(1, sizeof(*relaxed));
    if (relaxed == NULL) {
        return -SL_ENOMEM;
    }
    relaxed->loop = loop;
    relaxed->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (relaxed->epoll < 0) {
        free(relaxed);
        return -SL_ENOMEM;
    }
    *ret = relaxed;
    return 0;
}

void sl_relaxed_destroy(struct sl_relaxed *relaxed)
{
    if (relaxed != NULL) {
        assert(relaxed->count == 0);
        sl_timer_stop(relaxed->loop, &relaxed->timer);
        close(relaxed->epoll);
        free(relaxed);
    }
}

int sl_relaxed_add(struct sl_relaxed *relaxed, struct sl_relaxed_entry *entry)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = entry};
    assert(!entry->added);
    if (epoll_ctl(relaxed->epoll, EPOLL_CTL_ADD, entry->fd, &event) != 0) {
        return errno == ENOMEM || errno == ENOSPC ? -SL_ENOMEM : -SL_EINVAL;
    }
    entry->added = true;
    relaxed->count++;
    if (!sl_timer_active(&relaxed->timer) && relaxed->len == 0) {
        plan(relaxed, false);
    }
    return 0;
}

void sl_relaxed_remove(struct sl_relaxed *relaxed, struct sl_relaxed_entry *entry)
{
    if (!entry->added) {
        return;
    }
    entry->added = false;
    relaxed->count--;
    (void)epoll_ctl(relaxed->epoll, EPOLL_CTL_DEL, entry->fd, NULL);
    for (size_t i = relaxed->at; i < relaxed->len; i++) {
        if (relaxed->slice[i].data.ptr == entry) {
            relaxed->slice[i].data.ptr = NULL;
        }
    }
    if (relaxed->count == 0) {
        sl_timer_stop(relaxed->loop, &relaxed->timer);
    }
}
