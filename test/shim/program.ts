/*
 * The shim, compiled for a test, and programs run under it while this process plays the daemon.
 */
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'
import { hasNative } from '../../src/host/native.ts'
import { repoRoot } from '../paths.ts'
import { compileC, currentBuild, hasHeader, missing, requireTool } from '../tools.ts'

/** Whether the shim can be compiled and talked to here; skips the test otherwise. */
export const shimIsPossible = (t: TestContext): boolean => {
  if (!requireTool('cc', t, 'gcc libc6-dev')) return false
  if (!hasHeader('infiniband/verbs.h'))
    return missing(t, '<infiniband/verbs.h> is not installed here (Debian: apt-get install libibverbs-dev)')
  return hasNative() || missing(t, 'the npm package koffi cannot be loaded here')
}

let shim: string | undefined

/** The shim's path: the built one if nothing has changed since, else one compiled for this test file. */
export const compileShim = (folder: string): string => {
  shim ??= currentBuild('native/libuserdma_shim.so', 'shim')
  if (shim) return shim
  const sources = readdirSync(join(repoRoot, 'shim'))
    .filter(name => name.endsWith('.c'))
    .map(name => join(repoRoot, 'shim', name))
  const options = ['-shared', '-fPIC', '-fvisibility=hidden', '-ldl', '-lpthread']
  shim = compileC(join(folder, 'libuserdma_shim.so'), sources, options)
  return shim
}

export interface Ended {
  /** Exit status, or the signal's name. */
  readonly status: number | string
  readonly stdout: string
  readonly stderr: string
}

/** Runs a program to its end, without blocking this process. A program that hangs is killed after 30 seconds. */
export const runProgram = (
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  options: { readonly cwd?: string; readonly input?: string } = {},
): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { env, cwd: options.cwd, timeout: 30_000, killSignal: 'SIGKILL' })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', text => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', text => {
      stderr += text
    })
    child.stdin.on('error', () => {})
    child.stdin.end(options.input ?? '')
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ status: signal ?? code ?? -1, stdout, stderr }))
  })
