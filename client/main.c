/* SPDX-License-Identifier: Apache-2.0 */
/* linnet-client: a small language model on this device: run it, train an adapter for it, share what was
 * learnt. */
#include "commands.h"

int main(int argc, char **argv)
{
    const linnet_command commands[] = {
        client_command_generate, client_command_chat,     client_command_tokenize, client_command_evaluate,
        client_command_train,    client_command_adapter,  client_command_inspect,  client_command_bench,
        client_command_enroll,   client_command_run,      client_command_status,   client_command_data,
        client_command_forget,   client_command_quantize, client_command_serve,    client_command_classify,
    };
    linnet_error err = {0};
    if (linnet_crypto_init(&err) != LINNET_OK) {
        fprintf(stderr, "linnet-client: %s\n", err.message);
        return 1;
    }
    return linnet_cli_main("linnet-client", "Runs and fine-tunes a language model on this device.", commands,
                           ARRAY_LEN(commands), argc, argv);
}
