/* sluice-gateway: the HTTP API. */
#include "workers/gateway/gateway.h"

int main(int argc, char **argv)
{
    static const struct sl_option_set sets[] = {
        {"Gateway", gateway_option_table, &gateway_options}};
    static const struct sl_process process = {
        .program = "sluice-gateway",
        .synopsis = "Takes queries over HTTP and streams their answers.",
        .admin_address = "127.0.0.1:9100",
        .drain_ms = 65000,
        .option_sets = sets,
        .option_set_count = 1,
        .run = gateway_run,
        .ctx = &gateway_options,
    };
    return sl_process_main(&process, argc, argv);
}
