// Classes of images by an exported subnet: ONNX Runtime, stb_image and nlohmann/json.
//
//     apt install g++ libonnxruntime-dev libstb-dev nlohmann-json3-dev   # Debian 13
//     g++ -std=c++17 -O2 -I/usr/include/onnxruntime classify.cpp -lonnxruntime -o classify
//     ./classify runs/digits/subnets/small photos/*.jpg
//
// Takes card.json and the ONNX file of a subnet's directory, exported with or without --uint8.
// stb_image does not read EXIF: turn photographs before, where a camera wrote an orientation.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>
#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

using Pixels = std::vector<std::uint8_t>;  // RGB, row by row

struct Image {
  Pixels pixels;
  int width, height;
};

Image read_image(const std::string& path) {
  int width, height, channels;
  std::uint8_t* data = stbi_load(path.c_str(), &width, &height, &channels, 4);
  if (!data) throw std::runtime_error(path + ": " + stbi_failure_reason());
  Image image{Pixels(3 * width * height), width, height};
  for (int i = 0; i < width * height; i++)
    for (int c = 0; c < 3; c++) {
      const int alpha = data[4 * i + 3];  // white is below what is transparent
      image.pixels[3 * i + c] = (data[4 * i + c] * alpha + 255 * (255 - alpha) + 127) / 255;
    }
  stbi_image_free(data);
  return image;
}

// The image with another number of columns, rows and columns swapped: Pillow's antialiased bilinear
// filter, as in training.
Image swapped_columns(const Image& image, int target) {
  Image made{Pixels(3 * target * image.height), image.height, target};
  const double scale = double(image.width) / target, reach = std::max(scale, 1.0);
  for (int i = 0; i < target; i++) {
    const double middle = (i + 0.5) * scale;
    const int first = std::max(0, int(middle - reach + 0.5));
    const int last = std::min(image.width, int(middle + reach + 0.5));
    std::vector<double> weights;
    for (int j = first; j < last; j++)
      weights.push_back(std::max(0.0, 1 - std::abs((j + 0.5 - middle) / reach)));
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (int y = 0; y < image.height; y++)
      for (int c = 0; c < 3; c++) {
        double value = 0;
        for (int j = first; j < last; j++)
          value += weights[j - first] * image.pixels[(y * image.width + j) * 3 + c];
        made.pixels[(i * image.height + y) * 3 + c] = std::uint8_t(value / sum + 0.5);
      }
  }
  return made;
}

// [size, size, 3]: the shorter side resized, the centre cut out.
Pixels central(const Image& image, int shorter, int size) {
  const int smaller = std::min(image.width, image.height);
  const int width = image.width * shorter / smaller, height = image.height * shorter / smaller;
  const Image resized = swapped_columns(swapped_columns(image, width), height);
  // nearbyint rounds halves to the even neighbour, as Python does.
  const int left = std::nearbyint((width - size) / 2.0), top = std::nearbyint((height - size) / 2.0);
  Pixels pixels;
  for (int y = top; y < top + size; y++) {
    const auto row = resized.pixels.begin() + 3 * (y * width + left);
    pixels.insert(pixels.end(), row, row + 3 * size);
  }
  return pixels;
}

// What a file takes that does not normalise by itself: (pixels / 255 - mean) / std, channels first.
std::vector<float> normalized(const Pixels& pixels, const nlohmann::json& steps) {
  const std::vector<float> mean = steps["mean"], std = steps["std"];
  const std::size_t area = pixels.size() / 3;
  std::vector<float> values(pixels.size());
  for (std::size_t i = 0; i < area; i++)
    for (std::size_t c = 0; c < 3; c++)
      values[c * area + i] = (pixels[3 * i + c] / 255.0f - mean[c]) / std[c];
  return values;
}

std::vector<float> softmax(std::vector<float> logits) {
  const float highest = *std::max_element(logits.begin(), logits.end());
  for (float& x : logits) x = std::exp(x - highest);
  const float sum = std::accumulate(logits.begin(), logits.end(), 0.0f);
  for (float& x : logits) x /= sum;
  return logits;
}

// Probabilities of the classes.
std::vector<float> classify(Ort::Session& session, Pixels pixels, const nlohmann::json& card) {
  const std::int64_t size = card["resolution"], classes = card["classes"].size();
  const std::string input = card["exports"]["onnx"]["input"];
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::int64_t last[] = {1, size, size, 3}, first[] = {1, 3, size, size};
  std::vector<float> values = normalized(pixels, card["preprocessing"]);
  const Ort::Value images =
      input.rfind("uint8", 0) == 0
          ? Ort::Value::CreateTensor<std::uint8_t>(memory, pixels.data(), pixels.size(), last, 4)
          : Ort::Value::CreateTensor<float>(memory, values.data(), values.size(), first, 4);
  const char *inputs[] = {"images"}, *outputs[] = {"logits"};
  auto results = session.Run(Ort::RunOptions{}, inputs, &images, 1, outputs, 1);
  const float* logits = results[0].GetTensorData<float>();
  return softmax({logits, logits + classes});
}

int main(int count, char** arguments) try {
  if (count < 3) throw std::runtime_error("usage: classify SUBNET IMAGE...");
  const std::string directory = arguments[1];
  std::ifstream file(directory + "/card.json");
  const auto card = nlohmann::json::parse(file);
  const std::string model = card["exports"]["onnx"]["file"];
  Ort::Env environment(ORT_LOGGING_LEVEL_WARNING);
  Ort::Session session(environment, (directory + "/" + model).c_str(), Ort::SessionOptions{});
  for (int i = 2; i < count; i++) {
    const auto& steps = card["preprocessing"];
    Pixels pixels = central(read_image(arguments[i]), steps["resize_shorter_side"], card["resolution"]);
    const auto shares = classify(session, pixels, card);
    const auto best = std::max_element(shares.begin(), shares.end()) - shares.begin();
    const std::string name = card["classes"][best];
    std::printf("%s  %s %.2f%%\n", arguments[i], name.c_str(), 100 * shares[best]);
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
