/*
 * `userdma cdi`: writes a file of the Container Device Interface (github.com/cncf-tags/container-device-interface,
 * version 0.3.0), by which podman and others give containers the devices of a daemon on the host: environment, socket
 * and preload library (docs/how-to/containers.md).
 */
import type { OptionsOf } from '../command-line/option.ts'
import type { cdiOptions } from '../command-line/options.ts'
import { cdiText, editsFor } from '../container-edits.ts'
import { openReport } from '../output-file.ts'
import { openChosenSession } from '../own-daemon.ts'
import { shimLibrary } from '../paths.ts'

type CdiOptions = OptionsOf<typeof cdiOptions>

/** The command. */
export const cdi = async ({ socket, output }: CdiOptions): Promise<void> => {
  const client = await openChosenSession(socket)
  try {
    const { devices } = await client.config()
    if (devices.length === 0)
      throw new Error(`the daemon at ${client.socket} has no device; add one, such as rxe0@127.0.0.1`)
    const names = devices.map(({ name }) => name)
    const text = cdiText(names, editsFor(client.socket, shimLibrary()))
    if (output === undefined) process.stdout.write(text)
    else {
      const report = openReport(output)
      report.write(text)
      if (report.hasFailed) process.exitCode = 1
    }
  } finally {
    client.close()
  }
}
