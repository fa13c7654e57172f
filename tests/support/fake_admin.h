/*
 * common/admin.h without a server: defines its functions, so that a program that includes this once
 * links no common/admin.c. A test looks at the conditions.
 */
#ifndef TESTS_SUPPORT_FAKE_ADMIN_H
#define TESTS_SUPPORT_FAKE_ADMIN_H

#include "common/admin.h"

struct sl_condition {
    bool met;
};

static struct sl_condition conditions[2];
static size_t condition_count;

int sl_admin_create(struct sl_loop *loop, const char *address, struct sl_metrics *metrics,
                    struct sl_admin **ret, char *why, size_t why_size)
{
    (void)loop, (void)address, (void)metrics, (void)why, (void)why_size;
    condition_count = 0;
    *ret = NULL;
    return 0;
}

void sl_admin_destroy(struct sl_admin *admin)
{
    (void)admin;
}

int sl_admin_port(const struct sl_admin *admin)
{
    (void)admin;
    return 1;
}

struct sl_condition *sl_admin_condition(struct sl_admin *admin, const char *name)
{
    (void)admin, (void)name;
    conditions[condition_count].met = false;
    return &conditions[condition_count++];
}

void sl_condition_set(struct sl_condition *condition, bool is_met, const char *why)
{
    (void)why;
    condition->met = is_met;
}

void sl_admin_on_scrape(struct sl_admin *admin, void (*cb)(void *ctx), void *ctx)
{
    (void)admin, (void)cb, (void)ctx;
}

#endif
