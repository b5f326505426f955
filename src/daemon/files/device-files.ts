/*
 * Updates the files that programs read about devices, the tree (tree.ts) and its counters (counter-files.ts), when
 * devices are added, changed and removed.
 *
 * Another daemon has the files if it took the path of the socket after the socket was removed. Then nothing is changed.
 *
 * A write can fail, for example because the disk is full. At the daemon's start that is fatal. Later the error is only
 * logged, because calls still return correct results.
 */
import { closeSync } from 'node:fs'
import type { NetworkDevice } from '../../core/driver-contract.ts'
import { holdFile, isAt, removeHeld } from '../../host/held-file.ts'
import { NodeType } from '../../spec/enums.ts'
import { Errno } from '../../spec/errno.ts'
import type { PciFunction } from '../../uapi/tool.ts'
import type { DaemonDevice } from '../devices/devices.ts'
import { createClassFiles } from './class-files.ts'
import { type CountedDevice, createCounterFiles } from './counter-files.ts'
import { functionFolders, type ShownMachine } from './machine-tree.ts'
import type { PciPlace } from './pci-files.ts'
import {
  addToTree,
  deviceFolder,
  makeRoot,
  removeFromTree,
  renameInTree,
  type TreeDevice,
  updateTree,
  writeTree,
} from './tree.ts'

export interface DeviceFiles {
  add(device: DaemonDevice): void
  remove(device: DaemonDevice): void
  /** Call after the device was renamed. */
  rename(device: DaemonDevice, previousName: string): void
  /** Updates the files of a soft device whose port or GIDs have changed. */
  update(device: Pick<NetworkDevice, 'device'>): void
  /**
   * Updates the counters, and the files of classes (class-files.ts). Returns 0, or the errno of a failed write; files
   * that could not be written are removed.
   */
  refreshCounters(): number
  /** Removes the files. To be called once, last. */
  close(): void
}

/** Where the functions of devices are. */
type PlaceReader = (pci: PciFunction) => PciPlace

const placesIn = (shown: ShownMachine | undefined): PlaceReader => {
  const folders = shown && functionFolders(shown.machine)
  return pci => {
    const folder = folders?.get(pci.address)
    return folder === undefined ? pci : { ...pci, folder }
  }
}

const treeDeviceOf = ({ spec, device, network }: DaemonDevice, placeOf: PlaceReader): TreeDevice => {
  const { name, index: node, driver, attributes } = device
  const [port] = device.ports
  return {
    name,
    node,
    nodeType: driver.nodeType ?? NodeType.values.CA,
    driver: driver.name,
    abi: driver.abi ?? 1,
    guid: attributes.nodeGuid,
    hasUmad: driver.openManagement !== undefined,
    hasIssm: network?.subnetPort !== undefined,
    ...(driver.adapter !== undefined && { adapter: driver.adapter(attributes) }),
    // as on Linux, devices without Ethernet (EFA) belong to no interface
    interfaceName: driver.link === 'roce' ? (network?.link?.identity.interfaceName ?? '') : '',
    ...(spec.pci !== undefined && { pci: placeOf(spec.pci) }),
    port: port && {
      gids: port.gids.entries.flatMap((entry, index) => (entry === undefined ? [] : [{ ...entry, index }])),
      pkeys: [...port.pkeys],
      state: port.attributes.state,
      physState: port.attributes.physState,
      linkLayer: port.attributes.linkLayer,
      activeWidth: port.attributes.activeWidth,
      activeSpeed: port.attributes.activeSpeed,
      lid: port.attributes.lid,
      lmc: port.attributes.lmc,
      smLid: port.attributes.smLid,
      smSl: port.attributes.smSl,
      portCapFlags: port.attributes.portCapFlags,
    },
  }
}

/**
 * Writes the files below `root`, in place of an old tree. `devices`: all devices; the list may change. `machine`: as
 * for `writeTree`. Throws the system's error, and leaves no files then.
 */
export const createDeviceFiles = (
  root: string,
  devices: readonly DaemonDevice[],
  machine?: ShownMachine,
): DeviceFiles => {
  makeRoot(root)
  const folder = holdFile(root)
  const close = (): void => {
    removeHeld(root, folder)
    closeSync(folder)
  }
  try {
    return writeDeviceFiles(root, devices, machine, folder, close)
  } catch (error) {
    close()
    throw error
  }
}

/** `folder`: a descriptor of the folder at `root`. */
const writeDeviceFiles = (
  root: string,
  devices: readonly DaemonDevice[],
  machine: ShownMachine | undefined,
  folder: number,
  close: () => void,
): DeviceFiles => {
  const placeOf = placesIn(machine)
  const treeDevice = (device: DaemonDevice): TreeDevice => treeDeviceOf(device, placeOf)
  const requireOwn = (): void => {
    if (!isAt(root, folder)) throw new Error(`${root} was removed, or belongs to another daemon now`)
  }
  /** The device with its counters, if it has any. */
  const counted = ({ device, network, spec: { pci } }: DaemonDevice): CountedDevice[] => {
    const { name } = device
    const counters = network?.counters?.bind(network)
    return counters === undefined ? [] : [{ name, ...(pci !== undefined && { pci: placeOf(pci) }), counted: counters }]
  }
  const logErrors = (deviceName: string, body: () => void): void => {
    try {
      requireOwn()
      body()
    } catch (error) {
      console.error(`userdma daemon: the files of ${deviceName} are out of date:`, String(error))
    }
  }
  /** What the files of a device show: a port of InfiniBand has 150, of which a change concerns a few. */
  const shown = new Map<DaemonDevice, TreeDevice>()
  let areCountersStale = false
  for (const device of devices) shown.set(device, treeDevice(device))
  writeTree(root, [...shown.values()], machine)
  const classes = createClassFiles(root)
  const addClasses = (device: DaemonDevice): void => classes.add(device, deviceFolder(treeDevice(device)))
  for (const device of devices) addClasses(device)
  const counters = createCounterFiles(root, devices.flatMap(counted), () => performance.now())
  return {
    add(device) {
      const { name } = device.spec
      for (const one of counted(device)) logErrors(name, () => counters.add(one))
      // Also if the counters failed: programs find a device only in the tree.
      logErrors(name, () => {
        const next = treeDevice(device)
        addToTree(root, next)
        addClasses(device)
        shown.set(device, next)
      })
    },
    remove: removed =>
      logErrors(removed.device.name, () => {
        shown.delete(removed)
        counters.remove(removed.device.name)
        classes.remove(removed.device.name)
        removeFromTree(root, treeDevice(removed))
      }),
    rename(device, previousName) {
      const { name } = device.spec
      shown.delete(device)
      logErrors(name, () => {
        const renamed = treeDevice(device)
        renameInTree(root, previousName, renamed)
        classes.rename(previousName, name, deviceFolder(renamed))
      })
      // Also if the tree failed: with a folder that may be gone, each refresh of counters would report an error.
      counters.remove(previousName)
      for (const one of counted(device)) logErrors(name, () => counters.add(one))
    },
    update({ device }) {
      const found = devices.find(known => known.device === device)
      if (found === undefined) return
      logErrors(device.name, () => {
        const [before, next] = [shown.get(found), treeDevice(found)]
        // A failure leaves some files.
        shown.delete(found)
        updateTree(root, next, before)
        shown.set(found, next)
      })
    },
    refreshCounters() {
      try {
        requireOwn()
        classes.refresh()
        counters.refresh()
        if (areCountersStale) console.error('userdma daemon: the files of counters are up to date again')
        areCountersStale = false
        return 0
      } catch (error) {
        if (!areCountersStale) console.error('userdma daemon: the files of counters cannot be written:', String(error))
        areCountersStale = true
        return Math.abs((error as NodeJS.ErrnoException).errno ?? Errno.EIO)
      }
    },
    close,
  }
}
