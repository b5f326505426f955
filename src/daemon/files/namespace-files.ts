/*
 * The files that programs read about devices, a tree for each network namespace that has devices of its own
 * (daemon/devices/namespaces.ts), below that of the daemon's namespace, and one without devices for all others. A
 * session has the same tree to its end.
 */
import { join } from 'node:path'
import type { NetworkDevice } from '../../core/driver-contract.ts'
import type { DaemonDevice } from '../devices/devices.ts'
import type { DeviceNamespaces } from '../devices/namespaces.ts'
import { createDeviceFiles, type DeviceFiles } from './device-files.ts'
import type { ShownMachine } from './machine-tree.ts'

/** Below the root, beside dev and sys. */
const FOLDER = 'namespaces'
const NO_DEVICES = 'none'

export interface NamespaceFiles extends DeviceFiles {
  /** The folder of the tree for programs in a namespace. Throws the system's error. */
  rootOf(namespace: string | undefined): string
}

interface Tree {
  readonly root: string
  readonly files: DeviceFiles
  readonly devices: DaemonDevice[]
}

/** As `createDeviceFiles`. */
export const createNamespaceFiles = (
  root: string,
  devices: readonly DaemonDevice[],
  namespaces: DeviceNamespaces,
  machine?: ShownMachine,
): NamespaceFiles => {
  const own = createDeviceFiles(root, devices, machine)
  /** By namespace; NO_DEVICES: of those without devices. */
  const trees = new Map<string, Tree>()
  const treeOf = (name: string): Tree => {
    const known = trees.get(name)
    if (known !== undefined) return known
    const folder = join(root, FOLDER, name.replace(/\D+/g, '') || NO_DEVICES)
    const ofNamespace: DaemonDevice[] = []
    const tree = { root: folder, files: createDeviceFiles(folder, ofNamespace, machine), devices: ofNamespace }
    trees.set(name, tree)
    return tree
  }
  /** The tree with a device, if it is not that of the daemon's namespace. */
  const foreignTree = ({ device }: Pick<NetworkDevice, 'device'>): Tree | undefined => {
    const namespace = namespaces.foreignNamespaceOf(device)
    return namespace === undefined ? undefined : treeOf(namespace)
  }
  return {
    rootOf(namespace) {
      if (!namespaces.isForeign(namespace)) return root
      return (trees.get(namespace ?? '') ?? treeOf(NO_DEVICES)).root
    },
    add(device) {
      const tree = foreignTree(device)
      tree?.devices.push(device)
      const { add } = tree?.files ?? own
      add(device)
    },
    remove(device) {
      const tree = foreignTree(device)
      if (tree === undefined) {
        own.remove(device)
        return
      }
      tree.files.remove(device)
      tree.devices.splice(tree.devices.indexOf(device), 1)
      if (tree.devices.length > 0) return
      tree.files.close()
      for (const [namespace, known] of trees) if (known === tree) trees.delete(namespace)
    },
    rename(device, previousName) {
      const { files } = foreignTree(device) ?? { files: own }
      files.rename(device, previousName)
    },
    update(device) {
      const { files } = foreignTree(device) ?? { files: own }
      files.update(device)
    },
    refreshCounters() {
      let errno = own.refreshCounters()
      for (const { files } of trees.values()) errno ||= files.refreshCounters()
      return errno
    },
    close() {
      for (const { files } of trees.values()) files.close()
      own.close()
    },
  }
}
