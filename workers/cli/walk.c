/*
 * Walking a directory. Folders are entered in depth; each that lies on the way is known by device
 * and inode, so that a link back up is not followed round and round. A link is followed when what
 * it means lies below the root: a document store must not take in what only seems to be there.
 *
 * What cannot be read is not passed over in silence: it becomes an item with a reason.
 */
#include "workers/cli/walk.h"

#include "common/chunk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_MAX_BYTES = 16 << 20, SEGMENT_MAX = 256, DEPTH_MAX = 200, READ_BYTES = 65536 };

#define UTF8_MARK "\xef\xbb\xbf"

/* --- patterns --- */

static bool segment_fits(const char *pattern, size_t pattern_len, const char *name, size_t name_len)
{
    char p[SEGMENT_MAX], n[SEGMENT_MAX];
    if (pattern_len >= SEGMENT_MAX || name_len >= SEGMENT_MAX) {
        return false;
    }
    memcpy(p, pattern, pattern_len);
    memcpy(n, name, name_len);
    p[pattern_len] = n[name_len] = '\0';
    return fnmatch(p, n, FNM_PERIOD) == 0;
}

bool cli_path_fits(const char *pattern, const char *path)
{
    size_t pattern_len = strcspn(pattern, "/"), path_len = strcspn(path, "/");
    bool last = pattern[pattern_len] == '\0';
    if (pattern_len == 2 && strncmp(pattern, "**", 2) == 0) {
        if (!last && cli_path_fits(pattern + 3, path)) {
            return true;
        }
        if (path[0] == '.') {
            return false;
        }
        return path[path_len] == '\0' ? last : cli_path_fits(pattern, path + path_len + 1);
    }
    if (!segment_fits(pattern, pattern_len, path, path_len)) {
        return false;
    }
    if (last || path[path_len] == '\0') {
        return last && path[path_len] == '\0';
    }
    return cli_path_fits(pattern + pattern_len + 1, path + path_len + 1);
}

/* --- walking --- */

struct folder {
    const struct folder *parent;
    dev_t device;
    ino_t inode;
    size_t depth;
};

struct walk {
    const char *const *patterns;
    size_t pattern_count;
    char root[PATH_MAX]; /* Resolved. */
    char path[PATH_MAX]; /* Of what is looked at, relative to root. */
    struct cli_files *files;
    int err;
};

static bool wanted(const struct walk *walk)
{
    for (size_t i = 0; i < walk->pattern_count; i++) {
        if (cli_path_fits(walk->patterns[i], walk->path)) {
            return true;
        }
    }
    return false;
}

static void add_file(struct walk *walk, const char *reason)
{
    struct cli_files *files = walk->files;
    if (files->len == CLI_FILES_MAX) {
        walk->err = -SL_ETOOBIG;
        return;
    }
    if (files->len == files->cap) {
        size_t cap = files->cap > 0 ? files->cap * 2 : 64;
        struct cli_file *items = realloc(files->items, cap * sizeof(*items));
        if (items == NULL) {
            walk->err = -SL_ENOMEM;
            return;
        }
        files->items = items;
        files->cap = cap;
    }
    char *path = strdup(walk->path);
    if (path == NULL) {
        walk->err = -SL_ENOMEM;
        return;
    }
    files->items[files->len++] = (struct cli_file){.path = path, .reason = reason};
}

/* Whether the link in the folder fd leads to something below the root. */
static bool stays_below(const struct walk *walk)
{
    char full[2 * PATH_MAX], resolved[PATH_MAX];
    size_t len = strlen(walk->root);
    snprintf(full, sizeof(full), "%s/%s", walk->root, walk->path);
    if (realpath(full, resolved) == NULL) {
        return false; /* It leads nowhere. */
    }
    return strncmp(resolved, walk->root, len) == 0 && (resolved[len] == '/' || len == 1);
}

static bool on_the_way(const struct folder *folder, const struct stat *st)
{
    for (; folder != NULL; folder = folder->parent) {
        if (folder->device == st->st_dev && folder->inode == st->st_ino) {
            return true;
        }
    }
    return false;
}

static void walk_folder(struct walk *walk, int fd, const struct folder *folder);

static void enter(struct walk *walk, int parent_fd, const char *name, const struct stat *st,
                  const struct folder *parent)
{
    const struct folder folder = {parent, st->st_dev, st->st_ino, parent->depth + 1};
    if (on_the_way(parent, st)) {
        return;
    }
    if (folder.depth > DEPTH_MAX) {
        add_file(walk, "the folder lies too deep");
        return;
    }
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        add_file(walk, "the folder cannot be read");
        return;
    }
    walk_folder(walk, fd, &folder);
}

static void look_at(struct walk *walk, int fd, const char *name, const struct folder *folder)
{
    struct stat st;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return; /* Gone meanwhile. */
    }
    if (S_ISLNK(st.st_mode) && (!stays_below(walk) || fstatat(fd, name, &st, 0) != 0)) {
        return;
    }
    if (S_ISDIR(st.st_mode)) {
        enter(walk, fd, name, &st, folder);
    } else if (S_ISREG(st.st_mode) && wanted(walk)) {
        add_file(walk, NULL);
    }
}

/* Closes fd. */
static void walk_folder(struct walk *walk, int fd, const struct folder *folder)
{
    size_t len = strlen(walk->path);
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        close(fd);
        walk->err = -SL_ENOMEM;
        return;
    }
    const struct dirent *entry;
    while (walk->err == 0 && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (len + strlen(entry->d_name) + 2 > sizeof(walk->path)) {
            add_file(walk, "holds a path that is too long");
            continue;
        }
        snprintf(walk->path + len, sizeof(walk->path) - len, "%s%s", len > 0 ? "/" : "",
                 entry->d_name);
        look_at(walk, fd, entry->d_name, folder);
        walk->path[len] = '\0';
    }
    closedir(dir);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct cli_file *)a)->path, ((const struct cli_file *)b)->path);
}

int cli_walk(const char *root, const char *const *patterns, size_t count, struct cli_files *ret)
{
    *ret = (struct cli_files){.items = NULL};
    struct walk *walk = calloc(1, sizeof(*walk));
    if (walk == NULL) {
        return -SL_ENOMEM;
    }
    *walk = (struct walk){.patterns = patterns, .pattern_count = count, .files = ret};
    struct stat st;
    int fd = -1;
    if (realpath(root, walk->root) != NULL) {
        fd = open(walk->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0 || fstat(fd, &st) != 0) {
        walk->err = errno == ENOENT ? -SL_ENOENT : errno == ENOTDIR ? -SL_EINVAL : -SL_EIO;
        if (fd >= 0) {
            close(fd);
        }
    } else {
        const struct folder folder = {NULL, st.st_dev, st.st_ino, 0};
        walk_folder(walk, fd, &folder);
    }
    if (ret->len > 0) {
        qsort(ret->items, ret->len, sizeof(*ret->items), by_path);
    }
    int rv = walk->err;
    free(walk);
    return rv;
}

void cli_files_fini(struct cli_files *files)
{
    for (size_t i = 0; i < files->len; i++) {
        free(files->items[i].path);
    }
    free(files->items);
    *files = (struct cli_files){.items = NULL};
}

/* --- reading --- */

/* NULL, or why not. */
static const char *read_all(int fd, struct sl_buf *out)
{
    for (;;) {
        char *room = sl_buf_reserve(out, READ_BYTES);
        if (room == NULL) {
            return "larger than memory allows";
        }
        ssize_t got = read(fd, room, READ_BYTES);
        if (got < 0) {
            return "cannot be read";
        }
        if (got == 0) {
            return NULL;
        }
        out->len += (size_t)got;
        if (out->len > TEXT_MAX_BYTES) {
            return "larger than 16 MiB";
        }
    }
}

static const char *check_text(const struct sl_buf *text)
{
    struct sl_span all = sl_buf_span(text);
    if (sl_utf8_valid(all) < all.len) {
        return "not UTF-8";
    }
    if (all.len > 0 && memchr(all.data, '\0', all.len) != NULL) {
        return "holds a zero byte: not a text";
    }
    for (size_t i = 0; i < all.len; i++) {
        if (strchr(" \t\r\n\f\v", all.data[i]) == NULL) {
            return NULL;
        }
    }
    return "empty";
}

/* The byte order mark that some editors put at the start is no part of the text. */
static void drop_mark(struct sl_buf *text)
{
    if (sl_span_begins(sl_buf_span(text), UTF8_MARK)) {
        text->len -= sizeof(UTF8_MARK) - 1;
        memmove(text->data, text->data + sizeof(UTF8_MARK) - 1, text->len);
    }
}

const char *cli_read_text(const char *root, const char *path, struct sl_buf *out)
{
    char full[2 * PATH_MAX];
    struct stat st;
    snprintf(full, sizeof(full), "%s/%s", root, path);
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno == EACCES ? "permission denied" : "cannot be opened";
    }
    const char *reason = NULL;
    sl_buf_clear(out);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        reason = "not a regular file";
    } else if (st.st_size > TEXT_MAX_BYTES) {
        reason = "larger than 16 MiB";
    }
    reason = reason != NULL ? reason : read_all(fd, out);
    close(fd);
    drop_mark(out);
    return reason != NULL ? reason : check_text(out);
}
