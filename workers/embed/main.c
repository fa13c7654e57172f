/* The program sluice-embed: see embed.c for what it does. */
#include "common/worker.h"
#include "workers/embed/embed.h"

int main(int argc, char **argv)
{
    return sl_worker_main(&embed_stage, argc, argv);
}
