"""One phantom image as a DICOM file (PS3.3 A.2 Computed Radiography, A.26 Digital X-Ray)."""

from __future__ import annotations

from pathlib import Path

from openjpeg.utils import encode_pixel_data
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from medssl.data.phantom.acquisition import Picture, Vendor
from medssl.data.phantom.anatomy import Anatomy
from medssl.data.phantom.plan import PlannedImage, PlannedPatient, PlannedStudy, make_uid

NOTICE = "SYNTHETIC PHANTOM, not a patient"
ISSUER = "MEDSSL-PHANTOM"


def write_image(
    path: Path,
    seed: int,
    patient: PlannedPatient,
    study: PlannedStudy,
    image: PlannedImage,
    anatomy: Anatomy,
    vendor: Vendor,
    picture: Picture,
) -> str:
    """Write `picture` to `path` in the planned transfer syntax; the same arguments give the same bytes.

    Returns:
        The name of the transfer syntax.
    """
    dataset = Dataset()
    digital = vendor.photometric == "MONOCHROME2"
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    dataset.Modality = "DX" if digital else "CR"
    _describe_patient(dataset, seed, patient, study, image, anatomy)
    _describe_image(dataset, image, vendor, picture)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    _encode(dataset, image.syntax)
    dataset.save_as(path, enforce_file_format=True)
    return dataset.file_meta.TransferSyntaxUID.name


def _describe_patient(
    dataset: Dataset, seed: int, patient: PlannedPatient, study: PlannedStudy, image: PlannedImage, anatomy: Anatomy
) -> None:
    """Patient, study and series: obviously made-up values, UIDs that follow from the seed."""
    date = study.date.strftime("%Y%m%d")
    dataset.PatientName = f"Phantom^{patient.name}"
    dataset.PatientID = patient.name
    dataset.IssuerOfPatientID = ISSUER
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "F" if anatomy.female else "M"
    dataset.PatientAge = f"{anatomy.age + study.days // 365:03d}Y"
    dataset.StudyInstanceUID = make_uid(seed, patient.index, study.number)
    dataset.SeriesInstanceUID = make_uid(seed, patient.index, study.number, image.view)
    dataset.SOPInstanceUID = make_uid(seed, patient.index, study.number, image.view, image.number)
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = date
    dataset.StudyTime = dataset.ContentTime = f"{8 + patient.index % 10:02d}{10 * image.number:02d}00"
    dataset.StudyID = str(study.number)
    dataset.SeriesNumber = 2 if image.view == "LL" else 1
    dataset.InstanceNumber = image.number
    dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Chest radiograph, phantom"
    dataset.SeriesDescription = dataset.ImageComments = NOTICE


def _describe_image(dataset: Dataset, image: PlannedImage, vendor: Vendor, picture: Picture) -> None:
    """Equipment, geometry, grey scale and, uncompressed, the pixels."""
    dataset.Manufacturer = vendor.manufacturer
    dataset.ManufacturerModelName = f"Phantom {vendor.key}"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = image.view
    dataset.PatientOrientation = ["P", "F"] if image.view == "LL" else ["L", "F"]
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.ImagerPixelSpacing = [f"{picture.pixel:.6f}"] * 2
    dataset.BurnedInAnnotation = "NO"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = vendor.photometric
    dataset.Rows, dataset.Columns = picture.pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, vendor.bits, vendor.bits - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "0", "US"
    centre, width = picture.window
    if vendor.photometric == "MONOCHROME2":
        dataset.PresentationLUTShape = "IDENTITY"
        dataset.WindowCenter, dataset.WindowWidth = f"{centre:.1f}", f"{width:.1f}"
    else:  # this maker stores a second, harder window; readers show the first
        dataset.WindowCenter, dataset.WindowWidth = [f"{centre:.1f}"] * 2, [f"{width:.1f}", f"{0.7 * width:.1f}"]
        dataset.WindowCenterWidthExplanation = ["NORMAL", "HARD"]
        dataset.VOILUTFunction = "SIGMOID" if image.sigmoid else "LINEAR"
    dataset.LossyImageCompression = "00"
    dataset.PixelData = picture.pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _encode(dataset: Dataset, syntax: str) -> None:
    """Compress the pixels without loss: RLE (PS3.5 G) or JPEG 2000 (PS3.5 A.4.4)."""
    if syntax == "rle":
        dataset.compress(RLELossless, encoding_plugin="gdcm", generate_instance_uid=False)
    elif syntax == "jpeg2000":
        # openjpeg directly: pydicom's own way to it needs a further package, pylibjpeg.
        codestream = encode_pixel_data(
            dataset.PixelData,
            rows=dataset.Rows,
            columns=dataset.Columns,
            samples_per_pixel=1,
            bits_allocated=16,
            bits_stored=dataset.BitsStored,
            pixel_representation=0,
            photometric_interpretation=dataset.PhotometricInterpretation,
        )
        dataset.PixelData = encapsulate([bytes(codestream)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
