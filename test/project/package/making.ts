/*
 * Runs scripts/package.mjs as on a machine that lacks tools: the tools are those of a folder.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../../paths.ts'
import { findTool, scratchFolder } from '../../tools.ts'

const scratch = scratchFolder()

/** Tools: names, or a name with what it starts. `made`: the names of the packages, in `output`. */
export const makePackages = (tools: readonly (string | readonly [string, string])[], ...args: readonly string[]) => {
  const [path, packages] = ['tools-', 'packages-'].map(name => mkdtempSync(join(scratch, name))) as [string, string]
  const output = join(packages, 'made')
  for (const tool of tools) {
    const [name, program] = typeof tool === 'string' ? [tool, tool] : tool
    symlinkSync(findTool(program) ?? '', join(path, name))
  }
  const { status, stderr } = spawnSync(
    process.execPath,
    [join(repoRoot, 'scripts', 'package.mjs'), ...args, '--output', output],
    { env: { ...process.env, PATH: path }, encoding: 'utf8' },
  )
  return { status, stderr, output, made: existsSync(output) ? readdirSync(output) : [] }
}
