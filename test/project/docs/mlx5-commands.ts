/*
 * Generates docs/reference/mlx5-commands.md from the table of firmware commands and the syndromes.
 */
import { CommandStatus, type Syndrome, Syndromes, statusErrno } from '../../../src/drivers/mlx5/commands/status.ts'
import {
  type CommandName,
  Commands,
  commandLimits,
  type FirmwareCommand,
} from '../../../src/spec/drivers/mlx5-firmware/commands.ts'

const hex = (number: number, digits = 0): string => `0x${number.toString(16).padStart(digits, '0')}`

const linuxMethod: Readonly<Record<FirmwareCommand['method'], string>> = {
  general: '`DEVX_OTHER`',
  create: '`DEVX_OBJ_CREATE`',
  modify: '`DEVX_OBJ_MODIFY`',
  query: '`DEVX_OBJ_QUERY`',
}

const { unsupportedCommand } = Syndromes
const refusal = `no: \`${unsupportedCommand.status}\`, syndrome ${hex(unsupportedCommand.number)}`

const commandRow = ([name, command]: [string, FirmwareCommand]): string => {
  const limit = commandLimits[name as CommandName]
  const here = command.in === undefined ? refusal : `yes${limit === undefined ? '' : `: ${limit}`}`
  return `| ${hex(command.opcode, 3)} | \`${name}\` | ${linuxMethod[command.method]} | ${here} |`
}

const syndromeRow = ({ number, status, text }: Syndrome): string =>
  `| ${hex(number)} | \`${status}\` (${hex(CommandStatus[status])}) | ${statusErrno[status]} | ${text} |`

export const mlx5CommandsPage = (): string => `# Firmware commands of mlx5 devices

Programs give these commands by \`mlx5dv_devx_…\` of libmlx5, in a context opened with \`MLX5DV_CONTEXT_FLAGS_DEVX\`. Their
structs are those of mlx5_ifc.h. [A record](../decisions/mlx5-firmware-commands.md) says how they map to objects.

\`npm run docs\` writes this page, from \`src/spec/drivers/mlx5-firmware/\` and \`src/drivers/mlx5/commands/status.ts\`.

## Commands

All commands that Linux's mlx5_ib takes from programs, by opcode. A call with another command, or with a command of another
method, fails with EINVAL, as in Linux. The command that destroys an object is given by Linux itself (\`DEVX_OBJ_DESTROY\`).
Behind "yes" stands what the device takes where mlx5_ifc.h has more; other values are refused.

| opcode | command | Linux's method | here |
|---|---|---|---|
${Object.entries<FirmwareCommand>(Commands)
  .sort(([, a], [, b]) => a.opcode - b.opcode)
  .map(commandRow)
  .join('\n')}

## Refusals

The call of a refused command fails with EREMOTEIO, and the output has status and syndrome; libmlx5 makes the errno of the
status from it. \`userdma trace\` shows the sentence with the values. Statuses are an adapter's. Its syndromes differ from
firmware to firmware and are not published, so these are the device's own.

| syndrome | status | errno | |
|---|---|---|---|
${Object.values<Syndrome>(Syndromes).map(syndromeRow).join('\n')}
`
