//! The driver's functions, and handles that give back what they hold. All `unsafe` of the CUDA backend
//! is here and in the launches of `kernels`.
//!
//! The types are cudarc's bindings of `cuda.h`; its functions are not used. They look for another
//! library first (the toolkit's `libcuda.so`, which may be a stub), panic where one is missing, and
//! take every result for one of an enum that ends with CUDA 12.9, which a later driver need not keep
//! to. Nor do they fit: they are 30 KB of the binary that every host receives.
//!
//! The process has one thread and one context, which is current on it from [`Session::new`] until the
//! last handle is dropped.

use std::error::Error;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::rc::Rc;
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUfunction_attribute, CUresult};
use libloading::Library;

use super::error::{CudaError, MISSING};

/// Where the library is: by the loader's own search, then where WSL and NixOS keep it, which the
/// loader of a foreign program does not search. `libcuda.so` is not looked for: it is the toolkit's,
/// and may be a stub.
const PLACES: [&str; 3] =
    ["libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1", "/run/opengl-driver/lib/libcuda.so.1"];

/// The library, never unloaded: the process ends with its use.
static LIBRARY: OnceLock<Library> = OnceLock::new();

/// Looks a function up and calls it; anything but success is an error that names it. The values are
/// given with the types that `cuda.h` declares, and cudarc's declaration must agree.
macro_rules! call {
    ($function:ident($($value:expr => $type:ty),*)) => {{
        const _: unsafe fn($($type),*) -> CUresult = sys::$function;
        call_unchecked!($function($($value => $type),*))
    }};
}

/// The same without cudarc's declaration.
macro_rules! call_unchecked {
    ($function:ident($($value:expr => $type:ty),*)) => {{
        let call = stringify!($function);
        let name = concat!(stringify!($function), "\0").as_bytes();
        let missing = CudaError { call, result: MISSING };
        LIBRARY.get().ok_or(missing).and_then(|library| {
            // SAFETY: `cuda.h` declares the function of this name with these argument types.
            let function = unsafe {
                library.get::<unsafe extern "C" fn($($type),*) -> c_int>(name)
            };
            let function = function.map_err(|_| missing)?;
            // SAFETY: pointers are to live places of the declared types, lengths are theirs, and
            // handles are ones that the driver gave and that were not given back.
            match unsafe { function($($value),*) } {
                0 => Ok(()),
                result => Err(CudaError { call, result }),
            }
        })
    }};
}

/// Loads the library. Without it every call fails. The loader's words if it is not there.
pub(super) fn load() -> Result<(), String> {
    let mut why = String::new();
    for place in PLACES {
        // SAFETY: loading runs the library's constructors. That is foreign code, which is why this
        // process is a child with nothing to lose.
        match unsafe { Library::new(place) } {
            Ok(library) => {
                LIBRARY.get_or_init(|| library);
                return Ok(());
            }
            // The first says most: the others are rarely there.
            Err(error) if why.is_empty() => {
                why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            }
            Err(_) => {}
        }
    }
    Err(why)
}

/// The name of a result, as the driver gives it: also of one that is later than this program.
pub(super) fn name_of(result: c_int) -> String {
    let mut name = ptr::null();
    // Of any number, where cudarc has an enum.
    match call_unchecked!(cuGetErrorName(result => c_int, &raw mut name => *mut *const c_char)) {
        // SAFETY: the driver gives a constant string for a result that it knows, and an error else.
        Ok(()) if !name.is_null() => unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
        _ => format!("error {result}"),
    }
}

/// The newest CUDA version of the driver, such as 12040. It may be asked before [`init`].
pub(super) fn version() -> Result<u32, CudaError> {
    let mut version = 0;
    call!(cuDriverGetVersion(&raw mut version => *mut c_int))?;
    Ok(u32::try_from(version).unwrap_or(0))
}

/// Starts the driver.
pub(super) fn init() -> Result<(), CudaError> {
    call!(cuInit(0 => c_uint))
}

/// What a device says of itself.
pub(super) struct Found {
    device: sys::CUdevice,
    pub(super) uuid: [u8; 16],
    pub(super) name: String,
    pub(super) compute_capability: [u8; 2],
    pub(super) memory_bytes: u64,
    pub(super) multiprocessors: u32,
}

/// The device that this process sees; `None` unless it is exactly one.
pub(super) fn only_device() -> Result<Option<Found>, CudaError> {
    let mut count = 0;
    call!(cuDeviceGetCount(&raw mut count => *mut c_int))?;
    if count != 1 {
        return Ok(None);
    }
    let mut device = 0;
    call!(cuDeviceGet(&raw mut device => *mut sys::CUdevice, 0 => c_int))?;
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    call!(cuDeviceGetUuid(&raw mut uuid => *mut sys::CUuuid, device => sys::CUdevice))?;
    let mut name = [0_u8; 256];
    let length = c_int::try_from(name.len().saturating_sub(1)).unwrap_or(0);
    call!(cuDeviceGetName(name.as_mut_ptr().cast::<c_char>() => *mut c_char, length => c_int, device => sys::CUdevice))?;
    let mut bytes = 0;
    call!(cuDeviceTotalMem_v2(&raw mut bytes => *mut usize, device => sys::CUdevice))?;
    let major = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(Some(Found {
        device,
        uuid: uuid.bytes.map(c_char::cast_unsigned),
        // The last byte was kept back, so the text ends.
        name: CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned(),
        compute_capability: [major, minor].map(|number| u8::try_from(number).unwrap_or(0)),
        memory_bytes: to_u64(bytes),
        multiprocessors: attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    }))
}

fn attribute(device: sys::CUdevice, attribute: Attribute) -> Result<u32, CudaError> {
    let mut value = 0;
    call!(cuDeviceGetAttribute(&raw mut value => *mut c_int, attribute => Attribute, device => sys::CUdevice))?;
    Ok(u32::try_from(value).unwrap_or(0))
}

/// The context on the device. Every other handle keeps it alive.
pub(super) struct Session {
    context: sys::CUcontext,
    multiprocessors: u32,
}

impl Session {
    /// Makes a context and makes it current.
    pub(super) fn new(found: &Found) -> Result<Rc<Self>, CudaError> {
        let mut context = ptr::null_mut();
        call!(cuCtxCreate_v2(&raw mut context => *mut sys::CUcontext, 0 => c_uint, found.device => sys::CUdevice))?;
        Ok(Rc::new(Self { context, multiprocessors: found.multiprocessors }))
    }

    /// Device memory that is free, in bytes.
    pub(super) fn free_bytes(&self) -> Result<u64, CudaError> {
        let (mut free, mut total) = (0, 0);
        call!(cuMemGetInfo_v2(&raw mut free => *mut usize, &raw mut total => *mut usize))?;
        Ok(to_u64(free))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The process ends with its context: there is nobody to tell of a failure.
        let _ = call!(cuCtxDestroy_v2(self.context => sys::CUcontext));
    }
}

/// Memory of the device.
pub(super) struct Buffer {
    pointer: sys::CUdeviceptr,
    bytes: u64,
    _session: Rc<Session>,
}

impl Buffer {
    pub(super) fn new(session: &Rc<Session>, bytes: u64) -> Result<Self, CudaError> {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut pointer = 0;
        call!(cuMemAlloc_v2(&raw mut pointer => *mut sys::CUdeviceptr, length => usize))?;
        Ok(Self { pointer, bytes, _session: Rc::clone(session) })
    }

    /// The part of `bytes` from `offset` on; `None` if it is not all inside.
    pub(super) fn part(&self, offset: u64, bytes: u64) -> Option<Part> {
        let end = offset.checked_add(bytes)?;
        let address = self.pointer.checked_add(offset)?;
        (end <= self.bytes).then_some(Part { address, bytes })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = call!(cuMemFree_v2(self.pointer => sys::CUdeviceptr));
    }
}

/// A place in a [`Buffer`], which whoever uses it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) address: u64,
    pub(super) bytes: u64,
}

/// Page-locked memory of the host.
pub(super) struct Pinned {
    pointer: *mut c_void,
    bytes: usize,
    _session: Rc<Session>,
}

impl Pinned {
    pub(super) fn new(session: &Rc<Session>, bytes: usize) -> Result<Self, CudaError> {
        let mut pointer = ptr::null_mut();
        call!(cuMemAllocHost_v2(&raw mut pointer => *mut *mut c_void, bytes => usize))?;
        // SAFETY: the driver gave this many bytes, and nobody else has them yet. It does not say that
        // they hold anything.
        unsafe { pointer.write_bytes(0, bytes) };
        Ok(Self { pointer, bytes, _session: Rc::clone(session) })
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: the memory is this handle's, initialised, and the device writes to it only inside
        // `Stream::fetch`, which waits until it has.
        unsafe { std::slice::from_raw_parts(self.pointer.cast(), self.bytes) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and this handle is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.cast(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = call!(cuMemFreeHost(self.pointer => *mut c_void));
    }
}

/// Work in order.
pub(super) struct Stream {
    stream: sys::CUstream,
    _session: Rc<Session>,
}

impl Stream {
    pub(super) fn new(session: &Rc<Session>) -> Result<Self, CudaError> {
        let mut stream = ptr::null_mut();
        // CU_STREAM_NON_BLOCKING: nothing waits for the default stream, which is not used.
        call!(cuStreamCreate(&raw mut stream => *mut sys::CUstream, 1 => c_uint))?;
        Ok(Self { stream, _session: Rc::clone(session) })
    }

    /// Waits until all of it is done.
    pub(super) fn synchronize(&self) -> Result<(), CudaError> {
        call!(cuStreamSynchronize(self.stream => sys::CUstream))
    }

    /// Copies parts to the host, one after another, waits, and gives them as one slice. What does not
    /// fit into `pinned` is left out, so the slice is shorter.
    pub(super) fn fetch<'pinned>(
        &self,
        parts: impl IntoIterator<Item = Part>,
        pinned: &'pinned mut Pinned,
    ) -> Result<&'pinned [u8], CudaError> {
        let mut filled = 0_usize;
        let mut copied = Ok(());
        for part in parts {
            let length = usize::try_from(part.bytes).unwrap_or(usize::MAX);
            let Some(end) = filled.checked_add(length).filter(|end| *end <= pinned.bytes) else {
                break;
            };
            let to = pinned.pointer.wrapping_byte_add(filled);
            copied = call!(cuMemcpyDtoHAsync_v2(to => *mut c_void, part.address => sys::CUdeviceptr, length => usize, self.stream => sys::CUstream));
            if copied.is_err() {
                break;
            }
            filled = end;
        }
        // Also after a failure: copies that were begun must not outlive the borrow.
        let waited = self.synchronize();
        copied.and(waited)?;
        Ok(pinned.as_slice().get(..filled).unwrap_or_default())
    }

    /// Copies bytes to the device and waits. They must fit into both.
    pub(super) fn store(
        &self,
        bytes: &[u8],
        to: Part,
        pinned: &mut Pinned,
    ) -> Result<(), CudaError> {
        let too_long = CudaError {
            call: "cuMemcpyHtoDAsync_v2",
            result: CUresult::CUDA_ERROR_INVALID_VALUE as c_int,
        };
        let room = pinned.as_mut_slice().get_mut(..bytes.len()).ok_or(too_long)?;
        room.copy_from_slice(bytes);
        if to_u64(bytes.len()) > to.bytes {
            return Err(too_long);
        }
        let copied = call!(cuMemcpyHtoDAsync_v2(to.address => sys::CUdeviceptr, pinned.pointer => *const c_void, bytes.len() => usize, self.stream => sys::CUstream));
        let waited = self.synchronize();
        copied.and(waited)
    }

    /// Puts a kernel on the stream, with pointers to its parameters.
    ///
    /// # Safety
    ///
    /// The parameters are those that the kernel declares, in number, order and layout, and what they
    /// point to on the device is allocated until the stream has come past the launch.
    pub(super) unsafe fn launch(
        &self,
        function: &Function,
        grid: u32,
        parameters: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        call!(cuLaunchKernel(function.function => sys::CUfunction, grid => c_uint, 1 => c_uint, 1 => c_uint, function.threads => c_uint, 1 => c_uint, 1 => c_uint, function.dynamic_shared_bytes => c_uint, self.stream => sys::CUstream, parameters.as_mut_ptr() => *mut *mut c_void, ptr::null_mut() => *mut *mut c_void))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = call!(cuStreamDestroy_v2(self.stream => sys::CUstream));
    }
}

/// A loaded image.
pub(super) struct Module {
    module: sys::CUmodule,
    session: Rc<Session>,
}

impl Module {
    /// Loads an image, compiling it if it is PTX.
    ///
    /// # Safety
    ///
    /// The image is text that ends with a zero byte, or a cubin whose headers name no place outside
    /// of it: the driver is given no length.
    pub(super) unsafe fn load(session: &Rc<Session>, image: &[u8]) -> Result<Self, CudaError> {
        let mut module = ptr::null_mut();
        call!(cuModuleLoadData(&raw mut module => *mut sys::CUmodule, image.as_ptr().cast() => *const c_void))?;
        Ok(Self { module, session: Rc::clone(session) })
    }

    /// The kernel of this name and its launch. It is good as long as the module.
    pub(super) fn function(
        &self,
        name: &CStr,
        threads: u32,
        dynamic_shared_bytes: u32,
    ) -> Result<Function, CudaError> {
        let mut function = ptr::null_mut();
        call!(cuModuleGetFunction(&raw mut function => *mut sys::CUfunction, self.module => sys::CUmodule, name.as_ptr() => *const c_char))?;
        if dynamic_shared_bytes > 0 {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = c_int::try_from(dynamic_shared_bytes).unwrap_or(c_int::MAX);
            call!(cuFuncSetAttribute(function => sys::CUfunction, attribute => CUfunction_attribute, bytes => c_int))?;
        }
        Ok(Function { function, threads, dynamic_shared_bytes })
    }

    /// Thread blocks of a kernel that the whole device holds at once.
    pub(super) fn resident(&self, function: &Function) -> Result<u32, CudaError> {
        let mut blocks = 0;
        let threads = c_int::try_from(function.threads).unwrap_or(c_int::MAX);
        let shared = usize::try_from(function.dynamic_shared_bytes).unwrap_or(0);
        call!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&raw mut blocks => *mut c_int, function.function => sys::CUfunction, threads => c_int, shared => usize))?;
        Ok(u32::try_from(blocks).unwrap_or(0).saturating_mul(self.session.multiprocessors))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = call!(cuModuleUnload(self.module => sys::CUmodule));
    }
}

/// A kernel of a [`Module`].
pub(super) struct Function {
    function: sys::CUfunction,
    threads: u32,
    dynamic_shared_bytes: u32,
}

/// A size of the host as one of the device.
pub(super) fn to_u64(bytes: usize) -> u64 {
    // No wider than 64 bit on any platform with this driver.
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
