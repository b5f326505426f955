/*
 * The manifests of deploy/kubernetes, played with podman and a stand-in for kubelet (kubelet.ts), which chooses shares
 * and starts pods as kubelet does: the containers of the DaemonSet run, and two pods, with what Allocate answered, run
 * a ping-pong. Everything in a manifest that the player does not know is an error. `kubectl` reads all manifests.
 *
 * The host's files are below a folder of the test: a path of the host in a manifest or an answer is below it.
 */
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { parseAllDocuments } from 'yaml'
import { repoRoot } from '../paths.ts'
import { type Allocated, type Endpoint, Kubelet, type Listed } from './kubelet.ts'
import { DEBIAN, LIMITS, newPodman, noContainers } from './podman.ts'
import {
  assertGood,
  cleanEnvironment,
  type Finished,
  type Running,
  run,
  type Scope,
  start,
  startDaemon,
  suiteScope,
  temporaryFolder,
  userdma,
} from './programs.ts'

const skip = noContainers('kubectl')
const RDMA = 'userdma.dev/rdma'
const HOST_IP = '127.0.30.40'
const FOLDERS = ['deploy/kubernetes', 'deploy/kubernetes/pingpong'].map(name => join(repoRoot, name))

interface Container {
  readonly name: string
  readonly image: string
  readonly imagePullPolicy: string
  readonly command?: readonly string[]
  readonly args?: readonly string[]
  readonly env?: readonly { readonly name: string; readonly valueFrom: { fieldRef: { fieldPath: string } } }[]
  readonly securityContext: Readonly<Record<string, unknown>>
  readonly resources: { readonly limits?: Readonly<Record<string, number>>; readonly requests?: object }
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[]
}
interface PodSpec {
  readonly containers: readonly Container[]
  readonly volumes?: readonly { readonly name: string; readonly hostPath: { path: string; type: string } }[]
  readonly hostPID?: boolean
}
interface Manifest {
  readonly kind: string
  readonly metadata: { readonly name: string }
  readonly spec: PodSpec & { readonly template?: { readonly spec: PodSpec } }
}

const kustomized = async (t: Scope, folder: string): Promise<{ text: string; manifests: Manifest[] }> => {
  const { stdout: text, stderr } = await run(t, 'kubectl', ['kustomize', folder])
  assert.notEqual(text, '', stderr)
  return { text, manifests: parseAllDocuments(text).map(document => document.toJS() as Manifest) }
}

/** Options of podman by settings of a security context. */
const SECURITY: Readonly<Record<string, (value: unknown) => readonly string[]>> = {
  privileged: value => (value === true ? ['--privileged'] : []),
  runAsUser: value => [`--user=${value}`],
  runAsGroup: () => [],
  runAsNonRoot: () => [],
  allowPrivilegeEscalation: value => (value === false ? ['--security-opt=no-new-privileges'] : []),
  readOnlyRootFilesystem: value => (value === true ? ['--read-only'] : []),
  capabilities: value => ((value as { drop: string[] }).drop.includes('ALL') ? ['--cap-drop=all'] : []),
  // podman's default profile
  seccompProfile: () => [],
}
const KNOWN = [
  'name',
  'image',
  'imagePullPolicy',
  'command',
  'args',
  'env',
  'securityContext',
  'resources',
  'volumeMounts',
]

/** The words of `podman run` for a container. `host`: the folder that has the host's files. */
const wordsFor = (host: string, { hostPID, volumes = [] }: PodSpec, container: Container): string[] => {
  const unknown = Object.keys(container).filter(name => !KNOWN.includes(name))
  assert.deepEqual(unknown, [], `unknown settings of ${container.name}`)
  const values: Record<string, string> = {}
  for (const { name, valueFrom } of container.env ?? []) {
    assert.equal(valueFrom.fieldRef.fieldPath, 'status.hostIP')
    values[name] = HOST_IP
  }
  const expand = (text: string): string => text.replace(/\$\((\w+)\)/g, (_, name: string) => values[name])
  const mounts = (container.volumeMounts ?? []).map(({ name, mountPath }) => {
    const path = volumes.find(volume => volume.name === name)?.hostPath.path
    assert.ok(path, name)
    mkdirSync(join(host, path), { recursive: true })
    return `--volume=${join(host, path)}:${mountPath}`
  })
  const security = Object.entries(container.securityContext).flatMap(([name, value]) => {
    const option = SECURITY[name]
    assert.ok(option, `unknown securityContext.${name}`)
    return option(value)
  })
  return [
    ...LIMITS,
    ...(hostPID === true ? ['--pid=host'] : []),
    ...Object.entries(values).map(([name, value]) => `--env=${name}=${value}`),
    ...mounts,
    ...security,
    ...(container.command === undefined ? [] : [`--entrypoint=${JSON.stringify(container.command.slice(0, 1))}`]),
    container.image,
    ...(container.command?.slice(1) ?? []),
    ...(container.args?.map(expand) ?? []),
  ]
}

/** The ids that kubelet takes for a container that wants `count`. */
const chosen = async (endpoint: Endpoint, count: number): Promise<readonly string[]> => {
  const available = (endpoint.listed ?? []).filter(({ health }) => health === 'Healthy').map(({ ID }) => ID)
  const request = { available_deviceIDs: available, must_include_deviceIDs: [], allocation_size: count }
  const { container_responses } = await endpoint.call<{ container_responses: { deviceIDs: string[] }[] }>(
    'GetPreferredAllocation',
    { container_requests: [request] },
  )
  return container_responses[0].deviceIDs
}

/** Options of podman for what Allocate answered: names of CDI, or environment and mounts. */
const optionsFor = (host: string, { envs, mounts }: Allocated): string[] => [
  ...Object.entries(envs).map(([name, value]) => `--env=${name}=${value}`),
  ...mounts.map(
    ({ host_path, container_path, read_only }) =>
      `--volume=${join(host, host_path)}:${container_path}${read_only ? ':ro' : ''}`,
  ),
]

const isHealthy = (listed: readonly Listed[]): boolean =>
  listed.length > 0 && listed.every(({ health }) => health === 'Healthy')

describe('deploy/kubernetes', { skip }, () => {
  const scope = suiteScope()
  const podman = newPodman(scope, skip)
  before(() => podman.prepare())

  /** Starts the containers of the DaemonSet. */
  const playDaemonSet = async (t: Scope, host: string): Promise<Readonly<Record<string, Running>>> => {
    const { manifests } = await kustomized(t, FOLDERS[0])
    const spec = manifests.find(({ kind }) => kind === 'DaemonSet')?.spec.template?.spec
    assert.ok(spec)
    return Object.fromEntries(
      spec.containers.map(container => [
        container.name,
        podman.start(t, 'run', `--name=${container.name}`, ...wordsFor(host, spec, container)),
      ]),
    )
  }

  /** Runs the two pods of the example, and returns their ends, of the server first. */
  const playPods = async (t: Scope, host: string, kubelet: Kubelet): Promise<readonly Finished[]> => {
    const { manifests } = await kustomized(t, FOLDERS[1])
    const pods = manifests
      .filter(({ kind }) => kind === 'Pod')
      .sort((a, b) => b.metadata.name.localeCompare(a.metadata.name))
    assert.deepEqual(
      pods.map(({ metadata }) => metadata.name),
      ['pingpong-server', 'pingpong-client'],
    )
    const runs: Running[] = []
    for (const { spec } of pods)
      for (const container of spec.containers) {
        const options: string[] = ['--add-host=pingpong-server:127.0.0.1']
        for (const [resource, count] of Object.entries(container.resources.limits ?? {})) {
          const endpoint = await kubelet.until(resource, isHealthy)
          options.push(...optionsFor(host, await endpoint.allocate(...(await chosen(endpoint, count)))))
        }
        runs.push(podman.start(t, 'run', ...options, ...wordsFor(host, spec, container)))
      }
    return Promise.all(runs.map(({ ended }) => ended))
  }

  /** A folder with the host's files, which others may enter. */
  const newHost = (t: Scope): string => {
    const host = temporaryFolder(t)
    chmodSync(host, 0o755)
    return host
  }

  it('is accepted by kubectl', async t => {
    for (const folder of FOLDERS) {
      const { text, manifests } = await kustomized(t, folder)
      const file = join(temporaryFolder(t), 'all.yaml')
      writeFileSync(file, text)
      const words = ['label', '--local', '--dry-run=client', '-f', file, 'checked=yes', '-o', 'name']
      const { status, stdout, stderr } = await run(t, 'kubectl', words)
      assert.equal(status, 0, stderr)
      assert.equal(stdout.trim().split('\n').length, manifests.length, stdout)
    }
  })

  it('gives pods devices: a ping-pong, also after kubelet and the daemon have restarted', async t => {
    const host = newHost(t)
    const kubelet = new Kubelet(join(host, 'var/lib/kubelet/device-plugins'))
    t.after(() => kubelet.stop())
    await kubelet.start()
    t.after(() => podman.run('rm', '--force', '--ignore', '--time=0', 'daemon', 'device-plugin'))
    const containers = await playDaemonSet(t, host)
    const failures = Object.entries(containers).map(async ([name, { ended }]) => {
      const { stdout, stderr } = await ended
      throw new Error(`${name} ended: ${stdout}${stderr}`)
    })
    await Promise.race([kubelet.until(RDMA, isHealthy), ...failures])
    for (const failure of failures) failure.catch(() => {})
    for (const round of ['first', 'after restarts']) {
      await kubelet.until(RDMA, isHealthy)
      const [server, client] = await playPods(t, host, kubelet)
      for (const finished of [server, client]) {
        assertGood(finished)
        assert.match(finished.stdout, /1000 iters in/, round)
      }
      if (round !== 'first') break
      for (let i = 0; i < 100; i++) {
        await kubelet.restart()
        await kubelet.until(RDMA, isHealthy)
      }
      assertGood(await podman.run('kill', '--signal=KILL', 'daemon'))
      await kubelet.until(RDMA, listed => listed.length > 0 && listed.every(({ health }) => health === 'Unhealthy'))
      await containers.daemon.ended
      const { manifests } = await kustomized(t, FOLDERS[0])
      const spec = manifests.find(({ kind }) => kind === 'DaemonSet')!.spec.template!.spec
      const daemon = spec.containers.find(({ name }) => name === 'daemon')!
      podman.start(t, 'run', '--name=daemon', ...wordsFor(host, spec, daemon))
    }
    assertGood(await podman.run('stop', '--time=20', 'device-plugin'))
    assert.equal((await containers['device-plugin'].ended).status, 0)
  })

  it('names devices of CDI, for an unchanged Debian', async t => {
    const daemon = await startDaemon(t, { devices: ['rxe0@127.0.30.41', 'rxe1@127.0.30.42'] })
    const kubelet = new Kubelet(join(newHost(t), 'device-plugins'))
    t.after(() => kubelet.stop())
    await kubelet.start()
    const words = ['device-plugin', '--socket', daemon.socket, '--kubelet', kubelet.folder, '--cdi', podman.cdi]
    start(t, userdma, [...words, '--resource', 'rdma/hca,shares=10'], { env: cleanEnvironment() })
    const endpoint = await kubelet.until('rdma/hca', isHealthy)
    const pair = ['ibv_rc_pingpong -d rxe0 -g 1', 'until ibv_rc_pingpong -d rxe0 -g 1 localhost; do sleep 1; done']
    const ended = await Promise.all(
      pair.map(async command => {
        const { cdi_devices } = await endpoint.allocate(...(await chosen(endpoint, 2)))
        assert.equal(cdi_devices.length, 2)
        return podman.run(
          'run',
          ...LIMITS,
          ...cdi_devices.map(({ name }) => `--device=${name}`),
          DEBIAN,
          'sh',
          '-c',
          command,
        )
      }),
    )
    for (const finished of ended) {
      assertGood(finished)
      assert.match(finished.stdout, /1000 iters in/)
    }
  })
})
