/* Tools that make archives, with the same bytes in each run. */
import { spawnSync } from 'node:child_process'
import { root, StepError } from '../common.mjs'

/** Seconds since 1970: SOURCE_DATE_EPOCH, or the time of the commit, or 1980 outside of a checkout. */
export const sourceDate = () => {
  const { stdout } = spawnSync('git', ['log', '-1', '--format=%ct'], { cwd: root, encoding: 'utf8' })
  return Number(process.env.SOURCE_DATE_EPOCH || stdout?.trim() || 315532800)
}

/** Runs a program. Throws StepError after a failure. */
export const runTool = (program, args, env = {}) => {
  const options = { encoding: 'utf8', maxBuffer: 1 << 26, env: { ...process.env, ...env } }
  const { status, error, stdout, stderr } = spawnSync(program, args, options)
  if (status !== 0) throw new StepError(`${program}: ${error?.message ?? stdout + stderr}`)
}

/** Archives `names` of a folder; flags of tar may follow. */
export const writeTar = (path, folder, names, ...flags) => {
  const same = ['--sort=name', `--mtime=@${sourceDate()}`, '--owner=0', '--group=0', '--numeric-owner', '--format=gnu']
  runTool('tar', [...same, ...flags, '-cf', path, '-C', folder, ...names])
}
