/*
 * Replays a fuzzer's corpus without libFuzzer: each file named on the command line, or each file in
 * a folder named there, is given once to LLVMFuzzerTestOneInput. A crash or a sanitizer report is
 * the failure; an empty or missing corpus is one too.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (f == NULL || fstat(fileno(f), &st) != 0) {
        perror(path);
        return -1;
    }
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size + 1);
    if (data == NULL || fread(data, 1, size, f) != size) {
        fprintf(stderr, "%s: cannot be read\n", path);
        free(data);
        fclose(f);
        return -1;
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 0;
}

static int replay_folder(const char *path, DIR *dir, long *count)
{
    struct dirent *entry;
    char name[4096];
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (replay_file(name) != 0) {
            return -1;
        }
        ++*count;
    }
    return 0;
}

int main(int argc, char **argv)
{
    long count = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        int rv = dir != NULL ? replay_folder(argv[i], dir, &count) : replay_file(argv[i]);
        if (dir != NULL) {
            closedir(dir);
        } else {
            count++;
        }
        if (rv != 0) {
            return 1;
        }
    }
    printf("%ld inputs replayed\n", count);
    return count > 0 ? 0 : 1;
}
