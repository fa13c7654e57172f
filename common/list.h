/* An intrusive doubly linked list: the node is a member of what is listed, so that it allocates
 * nothing and an item removes itself in constant time. An empty node points at itself. */
#ifndef SLUICE_COMMON_LIST_H
#define SLUICE_COMMON_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct sl_list {
    struct sl_list *next;
    struct sl_list *prev;
};

/* The item that holds this node. */
#define SL_ITEM(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

#define SL_LIST_EACH(node, list)                                                                   \
    for (struct sl_list *node = (list)->next; node != (list); node = node->next)
/* The body may remove node, and only node. */
#define SL_LIST_EACH_SAFE(node, list)                                                              \
    for (struct sl_list *node = (list)->next, *node##_next = node->next; node != (list);           \
         node = node##_next, node##_next = node->next)

static inline void sl_list_init(struct sl_list *list)
{
    list->next = list->prev = list;
}

static inline bool sl_list_empty(const struct sl_list *list)
{
    return list->next == list;
}

static inline void sl_list_push(struct sl_list *list, struct sl_list *node) /* At the end. */
{
    node->prev = list->prev;
    node->next = list;
    list->prev->next = node;
    list->prev = node;
}

static inline void sl_list_remove(struct sl_list *node) /* Also when it is in no list. */
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    sl_list_init(node);
}

static inline struct sl_list *sl_list_first(struct sl_list *list) /* NULL when empty. */
{
    return list->next != list ? list->next : NULL;
}

#endif
